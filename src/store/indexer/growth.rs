//! How fast the index follows creates of groups of 8 by users who are in many groups, with sled and without all else:
//! `ROUNDTABLE_GROUPS=300000 ROUNDTABLE_USERS=60000 cargo test --release --lib index_growth -- --ignored --nocapture`.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::collections::BTreeSet;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::group::Event;
use crate::ids::GroupId;
use crate::store::disk::simulated::SimulatedDisk;
use crate::store::index::IndexHome;
use crate::store::index::sled::SledHome;
use crate::store::journal::tests::{effect, user};

const MEMBERS: usize = 8;
const CREATED_BYTES: u32 = 256;

#[test]
#[ignore = "measures, by hand"]
fn index_growth() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (groups, users) = (number("ROUNDTABLE_GROUPS", 300_000), number("ROUNDTABLE_USERS", 60_000));
    let names: Vec<UserId> = (0..users).map(|number| user(&format!("user-{number:06}"))).collect();
    let directory = tempfile::tempdir().unwrap();
    // Creates read nothing of the journal.
    let reader = JournalReader::new(SimulatedDisk::new(), 1 << 26);
    let home = SledHome::new(directory.path().join("index"));
    let mut indexer = Indexer::new(home.open().unwrap(), reader, [9; 16]).unwrap();
    indexer.joinings.settle_many();
    let mut random = StdRng::seed_from_u64(1);
    let part = (groups / 10).max(1);
    let (mut folding, mut flushing) = (0.0, 0.0);
    for lsn in 1..=groups {
        let content = created(lsn, &names, &mut random).into();
        let position =
            Position { segment: 1 + (lsn >> 18) as u32, offset: 512 + (lsn as u32 & 0x3_ffff) * CREATED_BYTES };
        let from = Instant::now();
        indexer.fold(Placed { lsn, position, bytes: CREATED_BYTES }, &content, lsn).unwrap();
        folding += from.elapsed().as_secs_f64();
        if indexer.is_full() {
            let from = Instant::now();
            indexer.flush().unwrap();
            flushing += from.elapsed().as_secs_f64();
        }
        if lsn % part == 0 {
            let bytes = std::fs::metadata(directory.path().join("index/db")).unwrap().len();
            let rate = part as f64 / (folding + flushing);
            println!(
                "{lsn:>8}: {rate:>6.0}/s, folding {folding:.1} s, flushing {flushing:.1} s, {} B a group",
                bytes / lsn
            );
            (folding, flushing) = (0.0, 0.0);
        }
    }
}

/// A group whose id is later than those before, as those that the server makes.
fn created(number: u64, names: &[UserId], random: &mut StdRng) -> crate::store::Change {
    let mut id = random.random::<[u8; 16]>();
    id[..6].copy_from_slice(&number.to_be_bytes()[2..]);
    let mut members = BTreeSet::new();
    while members.len() < MEMBERS {
        members.insert(random.random_range(0..names.len()));
    }
    let members = members.into_iter().map(|at| names[at].clone()).collect();
    let event = Event::Created { title: "title".into(), members };
    effect(GroupId::from_bytes(id).unwrap(), 1, 1, &format!("service-{}", number % 4), event)
}

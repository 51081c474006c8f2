//! Flipped bits. In the journal: the library's own reading of it names the file and a place, or nothing is lost; only in
//! the last batch, which no marker follows yet, a flip may pass for a torn tail, and such are counted. In the index: the
//! real server answers rightly all the same, made anew from the journal or not.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;
use roundtable::ids::OperationId;
use roundtable::store::{Verified, verify};

use crate::kills::Run;
use crate::ledger::{Operation, Outcome, Wish, user};
use crate::server::{Server, copy, segments};
use crate::table::{Seen, Skipped, Stage};

/// Of a segment's header, and of a packet's; a watermark's body begins with a place (`src/store/journal/packet.rs`).
const SEGMENT_HEADER_BYTES: usize = 512;
const PACKET_HEADER_BYTES: usize = 24;
const WATERMARK: u8 = 3;
/// Flips reach that far behind the last packet.
const BEHIND_BYTES: u64 = 4096;
/// A packet is named by its beginning, and has at most that many bytes.
const PACKET_BYTES_MAX: u64 = 1 << 20;

// ---- the journal -------------------------------------------------------------------------------------------------------

/// What became of one flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// Named with its file and a place at or before it.
    Named,
    /// Named, in words that point elsewhere.
    NamedElsewhere,
    /// Nothing was lost.
    Harmless,
    /// Lost in silence, in the last batch: as a torn tail.
    TornTail,
    /// Lost in silence.
    Silent,
}

/// A journal as a kill has left it, without an index.
struct Journal {
    run: Run,
    whole: Verified,
    /// The segments, each with the bytes that are used of it.
    files: Vec<(PathBuf, u64)>,
    /// Where in the last segment the last watermark says that everything was synced.
    line: u64,
}

pub(crate) fn journal(stage: &Stage) -> Result<Seen, Skipped> {
    let flips = stage.scale(150, 10_000);
    let mut random = stage.random(1);
    let journal = Journal::make(random.random(), stage.scale(1_000, 4_000));
    let mut counted = [0_u64; 5];
    for number in 1..=flips {
        let (path, place, bit) = journal.draw(&mut random);
        let judgement = journal.flip(&path, place, bit);
        counted[judgement as usize] += 1;
        assert_ne!(judgement, Judgement::Silent, "bit {bit} of {} at {place}, line {}", path.display(), journal.line);
        if number % 50 == 0 || number == flips {
            stage.show(number, flips, "flips, none silent");
        }
    }
    assert_eq!(journal.verified(), journal.whole, "each flip was taken back");
    let [named, elsewhere, harmless, torn, _] = counted;
    assert!(named > flips / 2, "most flips hit packets");
    let bytes: u64 = journal.files.iter().map(|(_, used)| used).sum();
    Ok(Seen {
        count: format!("{flips} flips in {} KiB, {} segments", bytes >> 10, journal.files.len()),
        observed: format!(
            "{named} named with file and place, {elsewhere} named with another, {harmless} harmless, {torn} in the last \
             batch passed for a torn tail"
        ),
        control: journal.control(),
    })
}

impl Journal {
    fn make(seed: u64, acknowledgements: u64) -> Self {
        let mut run = Run::new(seed);
        let server = run.start();
        let load = run.load(&server);
        load.wait(acknowledgements);
        server.kill();
        run.take(load);
        std::fs::remove_dir_all(run.data().join("index")).expect("it is there");
        let files = segments(&run.data()).into_iter().map(|path| {
            let content = std::fs::read(&path).expect("it reads");
            let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            (path, used)
        });
        let files: Vec<_> = files.collect();
        let line = line(&files.last().expect("a segment").0);
        let mut journal = Self { run, whole: Verified::default(), files, line };
        journal.whole = journal.verified();
        assert!(!journal.whole.is_damaged() && journal.whole.packets > acknowledgements / 64);
        journal
    }

    fn verified(&self) -> Verified {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        verify(&self.run.data(), scratch.path(), &mut |_| {}).expect("nobody holds it")
    }

    /// A file, a byte of it, and a bit of that.
    fn draw(&self, random: &mut StdRng) -> (PathBuf, u64, u32) {
        let bit = random.random_range(0..8);
        let (data, dice) = (self.run.data(), random.random_range(0..100));
        if dice < 2 {
            let path = if dice == 0 { data.join("FORMAT") } else { data.join("journal/HEAD") };
            let bytes = path.metadata().expect("it is there").len();
            return (path, random.random_range(0..bytes), bit);
        }
        let (path, used) = &self.files[random.random_range(0..self.files.len())];
        // Now and then where the headers are, and in the newest bytes.
        let range = match dice {
            2..10 => 0..SEGMENT_HEADER_BYTES as u64,
            10..20 => used - 2_000.min(used - 1)..used + BEHIND_BYTES,
            _ => 0..used + BEHIND_BYTES,
        };
        let size = path.metadata().expect("it is there").len();
        (path.clone(), random.random_range(range).min(size - 1), bit)
    }

    /// Flips a bit, looks, and flips it back.
    fn flip(&self, path: &Path, place: u64, bit: u32) -> Judgement {
        flip(path, place, bit);
        let verified = self.verified();
        flip(path, place, bit);
        self.judge(&verified, path, place)
    }

    fn judge(&self, verified: &Verified, path: &Path, place: u64) -> Judgement {
        let name = path.strip_prefix(self.run.data()).expect("it is below").to_string_lossy().into_owned();
        if verified.is_damaged() {
            let fits = |offset: u64| offset <= place && place < offset + PACKET_BYTES_MAX;
            let mut damages = verified.findings.iter().filter(|finding| finding.is_damage());
            let is_named = damages.any(|finding| finding.file == name && finding.offset.is_none_or(fits));
            return if is_named { Judgement::Named } else { Judgement::NamedElsewhere };
        }
        let is_whole = (verified.packets, verified.entries, verified.groups)
            == (self.whole.packets, self.whole.entries, self.whole.groups);
        let is_last = self.files.last().is_some_and(|(last, _)| last == path);
        match (is_whole, is_last && place >= self.line) {
            (true, _) => Judgement::Harmless,
            (false, true) => Judgement::TornTail,
            (false, false) => Judgement::Silent,
        }
    }

    /// A journal from which a whole end has gone that nothing tells of: the same judge has to call that silent.
    fn control(&self) -> String {
        let shorter = Verified { packets: self.whole.packets - 1, ..self.whole.clone() };
        let (first, _) = &self.files[0];
        let lie = self.judge(&shorter, first, SEGMENT_HEADER_BYTES as u64);
        assert_eq!(lie, Judgement::Silent, "control: a packet is missing and nothing is named");
        // The newest half of what no later segment or index vouches for.
        let (last, used) = self.files.last().expect("a segment");
        let good = std::fs::read(last).expect("it reads");
        let mut bad = good.clone();
        bad[SEGMENT_HEADER_BYTES..usize::try_from(*used).expect("small")].fill(0);
        std::fs::write(last, &bad).expect("it writes");
        let judgement = self.judge(&self.verified(), last, SEGMENT_HEADER_BYTES as u64);
        std::fs::write(last, good).expect("it writes");
        assert_eq!(judgement, Judgement::Silent, "control: zeros over all of the last segment");
        "the last segment's packets made zeros, and no index: the judge says silent".to_owned()
    }
}

fn flip(path: &Path, place: u64, bit: u32) {
    let file = File::options().read(true).write(true).open(path).expect("it opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("it reads");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, place).expect("it writes");
}

/// The place that the last watermark of a segment names, as its layout on disk has it.
fn line(path: &Path) -> u64 {
    let content = std::fs::read(path).expect("it reads");
    let number = |at: usize| u32::from_be_bytes(*content[at..].first_chunk().expect("it is there"));
    let (mut at, mut line) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES as u64);
    while at + 2 * PACKET_HEADER_BYTES <= content.len() && number(at + 8) | number(at + 12) != 0 {
        let body = at + PACKET_HEADER_BYTES;
        if content[at + 4] == WATERMARK && path.ends_with(format!("{:08}.seg", number(body))) {
            line = u64::from(number(body + 4));
        }
        at += (PACKET_HEADER_BYTES + number(at) as usize).next_multiple_of(8);
    }
    line
}

// ---- the index ---------------------------------------------------------------------------------------------------------

pub(crate) fn index(stage: &Stage) -> Result<Seen, Skipped> {
    let flips = stage.scale(8, 1_000);
    let mut random = stage.random(2);
    let mut run = Run::new(random.random());
    let server = run.start();
    let load = run.load(&server);
    load.wait(200);
    server.terminate();
    run.take(load);
    let good = tempfile::tempdir().expect("a temporary directory");
    copy(&run.data(), good.path());
    let (mut anew, mut harmless, mut verified_damaged) = (0, 0, 0);
    for number in 1..=flips {
        std::fs::remove_dir_all(run.data()).expect("it is there");
        copy(good.path(), &run.data());
        let (path, place, bit) = draw(&run.data().join("index"), &mut random);
        flip(&path, place, bit);
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let verified = verify(&run.data(), scratch.path(), &mut |_| {}).expect("nobody holds it");
        verified_damaged += u64::from(verified.is_damaged());
        let flipped = format!("bit {bit} of {} at {place}, verify says {:?}", path.display(), verified.findings);
        let server = Server::try_start(&run.data());
        let server = server.unwrap_or_else(|refused| panic!("an index can be made anew, {flipped}: {refused:?}"));
        let lost = run.losses(&server);
        assert!(lost.is_empty(), "{flipped}: {lost:?}");
        server.kill();
        let is_anew = run.data().join("index.broken-1").exists();
        *(if is_anew { &mut anew } else { &mut harmless }) += 1;
        stage.show(number, flips, "flips, all answers right");
    }
    Ok(Seen {
        count: format!("{flips} flips"),
        observed: format!(
            "all logs, records and lists right; {anew} times made anew, {harmless} times used as it was; verify named \
             {verified_damaged}"
        ),
        control: control(&mut run),
    })
}

/// A bit of the index, most often where there is something.
fn draw(index: &Path, random: &mut StdRng) -> (PathBuf, u64, u32) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(index)
        .expect("it is there")
        .map(|item| item.expect("an item").path())
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0))
        .collect();
    files.sort();
    let path = files.swap_remove(random.random_range(0..files.len()));
    let content = std::fs::read(&path).expect("it reads");
    let mut place = random.random_range(0..content.len());
    if random.random_range(0..10) > 0 {
        let used = (0..content.len()).map(|step| (place + step) % content.len());
        place = used.into_iter().find(|at| content[*at] != 0).unwrap_or(place);
    }
    (path, place as u64, random.random_range(0..8))
}

/// The ledger is told of an answer that was never given: the same look has to miss it.
fn control(run: &mut Run) -> String {
    let operation = OperationId::from_bytes([9; 16]).expect("not zero");
    let known = run.ledger.operations.iter().find_map(|operation| match operation.outcome {
        Outcome::Acknowledged(answer) => Some(answer),
        Outcome::Refused | Outcome::Unknown => None,
    });
    let answer = known.expect("something was acknowledged");
    let wish = Wish::Send { group: answer.group, body: operation.as_bytes().to_vec() };
    let outcome = Outcome::Acknowledged(answer);
    run.note(Operation { id: operation, user: user("user-1"), wish, outcome, round: 1 });
    let server = run.start();
    let lost = run.losses(&server).len();
    server.kill();
    assert!(lost > 0, "control: nobody misses what never was");
    format!("an answer that was never given, in the ledger: {lost} things found wrong")
}

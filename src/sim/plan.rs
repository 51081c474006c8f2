//! What a run is made of, all of it drawn from its seed: how many clients, which faults, and how often.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The power goes: any subset of what was not synced survives.
    PowerCut,
    /// The process is killed: everything written stays readable.
    Kill,
    /// The power goes, or the process is killed, in the middle of what the disk is asked to do.
    CutWithin,
    /// The server is stopped cleanly.
    Stop,
    /// An operation of the disk fails; if it is a sync, what it covered is dropped.
    DiskError,
    /// A write that fails has written its first half.
    ShortWrite,
    /// The disk is full for a while.
    FullDisk,
    /// The index is lost in a start.
    IndexLoss,
    /// A bit of the journal flips between two lives.
    BitFlip,
    /// Storage takes long for what it is asked.
    SlowStorage,
    /// Bytes come one by one.
    SmallPieces,
    /// A direction of a connection stands still for a while.
    Stall,
    /// A connection is reset, in the middle of a frame too.
    Reset,
    /// A peer is gone, and nobody says so.
    HalfOpen,
    /// A socket that takes little.
    SmallWindow,
    /// Turns of the loop in which nothing happened.
    SpuriousTurn,
    /// The wall clock jumps.
    ClockJump,
    /// A device is started again with what it has stored.
    DeviceRestart,
    /// Peers that send garbage, damaged frames, floods, and ask for what is not theirs.
    Hostile,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::PowerCut,
        Self::Kill,
        Self::CutWithin,
        Self::Stop,
        Self::DiskError,
        Self::ShortWrite,
        Self::FullDisk,
        Self::IndexLoss,
        Self::BitFlip,
        Self::SlowStorage,
        Self::SmallPieces,
        Self::Stall,
        Self::Reset,
        Self::HalfOpen,
        Self::SmallWindow,
        Self::SpuriousTurn,
        Self::ClockJump,
        Self::DeviceRestart,
        Self::Hostile,
    ];

    /// How often it comes at most, in ten thousand steps.
    fn rate_max(self) -> u32 {
        match self {
            Self::PowerCut | Self::Kill | Self::CutWithin | Self::DiskError => 50,
            Self::Stop | Self::FullDisk => 30,
            Self::ClockJump | Self::DeviceRestart => 60,
            Self::Reset | Self::HalfOpen => 150,
            Self::Hostile | Self::SpuriousTurn => 500,
            Self::Stall | Self::SmallPieces | Self::SmallWindow => 2_500,
            Self::SlowStorage | Self::IndexLoss | Self::ShortWrite | Self::BitFlip => 5_000,
        }
    }
}

/// What a shrunk run leaves out of what its seed draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// Faults that do not happen.
    pub without: Vec<Fault>,
    /// At most so many clients.
    pub clients_max: usize,
    /// At most so many steps before the faults end.
    pub steps_max: u64,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { without: Vec::new(), clients_max: usize::MAX, steps_max: u64::MAX }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) steps: u64,
    pub(super) clients: usize,
    pub(super) users: usize,
    /// Whether a service acts for them and hears the feed.
    pub(super) has_service: bool,
    /// Whether an operator looks on, and cuts somebody off now and then.
    pub(super) has_operator: bool,
    pub(super) segment_bytes: u32,
    pub(super) entries_kept: u64,
    pub(super) body_bytes_max: usize,
    rates: [u32; Fault::ALL.len()],
}

/// Events of a run with faults; those of its quiet end come on top.
const STEPS: u64 = 1_000;

impl Plan {
    pub(super) fn draw(seed: u64, cuts: &Cuts) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut rates = [0; Fault::ALL.len()];
        for (rate, fault) in rates.iter_mut().zip(Fault::ALL) {
            let drawn = random.random_range(0..=fault.rate_max());
            let is_on = random.random_bool(0.4);
            if is_on && !cuts.without.contains(&fault) {
                *rate = drawn.max(1);
            }
        }
        // A packet has to fit a quarter of a segment. Large bodies are for readers that fall behind.
        let sizes = [(8, 60), (8, 1_200), (8, 1_200), (16, 700), (32, 1_500), (128, 16_000)];
        let (segment_kib, body_bytes_max) = sizes[random.random_range(0..sizes.len())];
        let segment_bytes = segment_kib * 1024;
        let kept_max = [2, 6, 60][random.random_range(0..3_usize)];
        let entries_kept = random.random_range(1..=kept_max);
        let users = random.random_range(2..=4_usize);
        let clients = users + random.random_range(1..=3_usize);
        let (has_service, has_operator) = (random.random_bool(0.3), random.random_bool(0.15));
        Self {
            steps: STEPS.min(cuts.steps_max),
            clients: clients.min(cuts.clients_max).max(1),
            users,
            has_service,
            has_operator,
            segment_bytes,
            entries_kept,
            body_bytes_max,
            rates,
        }
    }

    /// How often a fault comes, in ten thousand steps; 0: never.
    pub(super) fn rate(&self, fault: Fault) -> u32 {
        self.rates[Fault::ALL.iter().position(|other| *other == fault).unwrap_or(0)]
    }

    /// The faults that may come.
    pub(super) fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        Fault::ALL.into_iter().filter(|fault| self.rate(*fault) > 0)
    }
}

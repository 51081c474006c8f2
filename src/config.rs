//! The configuration of a server: a TOML file, over which the flags of the command line win.
//!
//! ```toml
//! listen = "127.0.0.1:7400"          # address and port
//! data = "./roundtable-data"         # the data directory
//! cluster = "roundtable"             # the `aud` that tokens must name
//! segment_mib = 64                   # size of a journal segment of a new data directory
//! create = "everyone"                # who may make groups: "everyone" or "services"
//! add = "everyone"                   # who may add members: "everyone" or "services"
//! retention_entries = 100000         # newest entries of a group's log that are kept
//! retention_mib = 64                 # newest MiB of a group's log that are kept
//! retention_days = 30                # age up to which entries are kept
//! groups_per_user = 2000             # groups that a user may be in
//! insecure_without_tls = false       # listen beyond this machine although there is no TLS yet
//! [groups_of]                        # groups that single users may be in, by name: "support-bot" = 100000
//! ```
//!
//! Every key may be left out. A key that is not known is an error: a misspelt one must not be ignored in silence.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::ids::{Openness, UserId};
use crate::limits::{
    GROUPS_PER_USER_DEFAULT, GROUPS_PER_USER_MIN, RETENTION_AGE_MS_DEFAULT, RETENTION_BYTES_DEFAULT,
    RETENTION_ENTRIES_DEFAULT, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN,
};

/// The address that a server listens on if nothing else is said.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7400";
/// The data directory if nothing else is said.
pub const DATA_DEFAULT: &str = "./roundtable-data";
/// The cluster's name if nothing else is said.
pub const CLUSTER_DEFAULT: &str = "roundtable";
/// Largest segment that can be asked for, in MiB.
const SEGMENT_MIB_MAX: u64 = 4096;
const MIB: u64 = 1024 * 1024;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What may be said about a server; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address and port to listen on; port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Size of a journal segment, in MiB.
    pub segment_mib: Option<u64>,
    /// Who may make groups.
    pub create: Option<Who>,
    /// Who may add members.
    pub add: Option<Who>,
    /// How many of the newest entries of a group's log are kept.
    pub retention_entries: Option<u64>,
    /// How much of the newest of a group's log is kept, in MiB.
    pub retention_mib: Option<u64>,
    /// Up to which age entries are kept, in days.
    pub retention_days: Option<u64>,
    /// Groups that a user may be in.
    pub groups_per_user: Option<u32>,
    /// The same for single users, by name.
    pub groups_of: Option<BTreeMap<String, u32>>,
    /// Whether an address beyond this machine may be listened on without TLS.
    pub insecure_without_tls: Option<bool>,
}

/// To whom a request is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Users and services.
    Everyone,
    /// Services alone.
    Services,
}

impl From<Who> for Openness {
    fn from(who: Who) -> Self {
        match who {
            Who::Everyone => Self::Everyone,
            Who::Services => Self::Services,
        }
    }
}

/// The configuration of a server, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address and port to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// Size of a journal segment, in bytes.
    pub segment_bytes: u64,
    /// Who may make groups.
    pub create: Openness,
    /// Who may add members.
    pub add: Openness,
    /// Groups that a user may be in.
    pub groups_per_user: u32,
    /// The same for single users.
    pub groups_of: BTreeMap<UserId, u32>,
    /// How many of the newest entries of a group's log are kept.
    pub retention_entries: u64,
    /// How much of the newest of a group's log is kept, in bytes.
    pub retention_bytes: u64,
    /// Up to which age entries are kept, in milliseconds of running time.
    pub retention_age_ms: u64,
}

/// What is wrong with a configuration, in one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// Reads a file. Relative paths in it are relative to the working directory, as those of flags are.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
        Self::from_toml(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }

    /// Reads the text of a file.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
            ConfigError(format!("line {line}: {}", error.message().replace('\n', " ")))
        })
    }

    /// These settings where they say something, `under` where they do not.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            listen: self.listen.or(under.listen),
            data: self.data.or(under.data),
            cluster: self.cluster.or(under.cluster),
            segment_mib: self.segment_mib.or(under.segment_mib),
            create: self.create.or(under.create),
            add: self.add.or(under.add),
            groups_per_user: self.groups_per_user.or(under.groups_per_user),
            groups_of: self.groups_of.or(under.groups_of),
            retention_entries: self.retention_entries.or(under.retention_entries),
            retention_mib: self.retention_mib.or(under.retention_mib),
            retention_days: self.retention_days.or(under.retention_days),
            insecure_without_tls: self.insecure_without_tls.or(under.insecure_without_tls),
        }
    }

    /// Fills in the defaults and checks the whole.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or_else(|| LISTEN_DEFAULT.parse().expect("the default is an address"));
        if !listen.ip().is_loopback() && self.insecure_without_tls != Some(true) {
            return Err(ConfigError(format!(
                "{listen} can be reached from other machines and this version has no TLS: anybody on the way could \
                 read and change everything, tokens included; listen on 127.0.0.1, or say --insecure-without-tls"
            )));
        }
        let cluster = self.cluster.unwrap_or_else(|| CLUSTER_DEFAULT.to_owned());
        if cluster.is_empty() {
            return Err(ConfigError("the cluster's name must not be empty".to_owned()));
        }
        let segment_bytes = self.segment_mib.map_or(Ok(SEGMENT_BYTES_DEFAULT), segment_bytes)?;
        let open_to = |who: Option<Who>| who.map_or(Openness::Everyone, Openness::from);
        let (create, add) = (open_to(self.create), open_to(self.add));
        let data = self.data.unwrap_or_else(|| DATA_DEFAULT.into());
        Ok(Config {
            listen,
            data,
            cluster,
            segment_bytes,
            create,
            add,
            groups_per_user: groups_max("groups_per_user", self.groups_per_user.unwrap_or(GROUPS_PER_USER_DEFAULT))?,
            groups_of: groups_of(self.groups_of.unwrap_or_default())?,
            retention_entries: at_least_one("retention_entries", self.retention_entries, 1, RETENTION_ENTRIES_DEFAULT)?,
            retention_bytes: at_least_one("retention_mib", self.retention_mib, MIB, RETENTION_BYTES_DEFAULT)?,
            retention_age_ms: at_least_one("retention_days", self.retention_days, DAY_MS, RETENTION_AGE_MS_DEFAULT)?,
        })
    }
}

fn groups_max(name: &str, groups: u32) -> Result<u32, ConfigError> {
    if groups >= GROUPS_PER_USER_MIN {
        return Ok(groups);
    }
    Err(ConfigError(format!("{name} is {groups}, but must be at least {GROUPS_PER_USER_MIN}")))
}

fn groups_of(said: BTreeMap<String, u32>) -> Result<BTreeMap<UserId, u32>, ConfigError> {
    let one = |(name, groups): (String, u32)| {
        let user = UserId::new(&name).map_err(|error| ConfigError(format!("groups_of: {name:?}: {error}")))?;
        Ok((user, groups_max(&format!("groups_of {name:?}"), groups)?))
    };
    said.into_iter().map(one).collect()
}

/// A number of units, at least one: the newest entry of a group is kept in any case.
fn at_least_one(name: &str, said: Option<u64>, unit: u64, default: u64) -> Result<u64, ConfigError> {
    match said {
        None => Ok(default),
        Some(0) => Err(ConfigError(format!("{name} is 0, but must be at least 1"))),
        Some(count) => Ok(count.saturating_mul(unit)),
    }
}

fn segment_bytes(mib: u64) -> Result<u64, ConfigError> {
    let mib_min = SEGMENT_BYTES_MIN / MIB;
    if (mib_min..=SEGMENT_MIB_MAX).contains(&mib) {
        Ok(mib * MIB)
    } else {
        Err(ConfigError(format!("segment_mib is {mib}, but must be {mib_min} to {SEGMENT_MIB_MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_documentation_is_the_default() {
        let documented: Vec<&str> = include_str!("config.rs")
            .lines()
            .skip_while(|line| !line.contains("```toml"))
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .map(|line| line.trim_start_matches("//! "))
            .collect();
        let settings = Settings::from_toml(&documented.join("\n")).unwrap();
        assert_eq!(settings.into_config(), Settings::default().into_config());
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = Settings::from_toml("listen = \"127.0.0.1:1\"\ncluster = \"east\"").unwrap();
        let flags = Settings { listen: "127.0.0.1:2".parse().ok(), ..Settings::default() };
        let config = flags.over(file).into_config().unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.cluster, "east");
        assert_eq!(config.segment_bytes, SEGMENT_BYTES_DEFAULT);
    }

    #[test]
    fn the_groups_of_users_are_limited_for_all_and_for_each() {
        let of = |text: &str| Settings::from_toml(text).unwrap().into_config();
        let config = of("groups_per_user = 64\n[groups_of]\n\"support-bot\" = 100000").unwrap();
        assert_eq!(config.groups_per_user, 64);
        assert_eq!(config.groups_of, BTreeMap::from([(UserId::new("support-bot").unwrap(), 100_000)]));
        for wrong in ["groups_per_user = 63", "[groups_of]\n\"\" = 100", "[groups_of]\nbob = 3"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn create_and_add_may_be_closed_to_all_but_services() {
        let config = Settings::from_toml("add = \"services\"").unwrap().into_config().unwrap();
        assert_eq!((config.create, config.add), (Openness::Everyone, Openness::Services));
        assert!(Settings::from_toml("create = \"nobody\"").unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = Settings::from_toml("cluster = \"a\"\nlissen = \"127.0.0.1:1\"").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("lissen") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn listening_beyond_this_machine_needs_to_be_called_insecure() {
        let open = Settings { listen: "0.0.0.0:7400".parse().ok(), ..Settings::default() };
        let error = open.clone().into_config().unwrap_err().to_string();
        assert!(error.contains("no TLS") && error.contains("--insecure-without-tls"), "{error}");
        assert!(Settings { insecure_without_tls: Some(false), ..open.clone() }.into_config().is_err());
        assert!(Settings { insecure_without_tls: Some(true), ..open }.into_config().is_ok());
        assert!(Settings { listen: "[::1]:0".parse().ok(), ..Settings::default() }.into_config().is_ok());
    }

    #[test]
    fn retention_is_at_least_one_of_each_and_counted_in_its_unit() {
        let with = |text: &str| Settings::from_toml(text).unwrap().into_config();
        for key in ["retention_entries", "retention_mib", "retention_days"] {
            let error = with(&format!("{key} = 0")).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
            assert!(with(&format!("{key} = 1")).is_ok());
        }
        let config = with("retention_entries = 7\nretention_mib = 2\nretention_days = 1").unwrap();
        let kept = (config.retention_entries, config.retention_bytes, config.retention_age_ms);
        assert_eq!(kept, (7, 2 * MIB, DAY_MS));
    }

    #[test]
    fn segments_have_4_mib_to_4_gib() {
        let with = |mib| Settings { segment_mib: Some(mib), ..Settings::default() }.into_config();
        assert!(with(3).is_err());
        assert_eq!(with(4).unwrap().segment_bytes, 4 * MIB);
        assert_eq!(with(4096).unwrap().segment_bytes, 4096 * MIB);
        assert!(with(4097).is_err());
    }
}

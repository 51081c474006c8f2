//! The configuration file: any text is refused with one line, or makes a configuration within its limits.
//!
//! ```text
//! the text of a file; behind a line that is `---`, the text of another, over which the first wins
//! ```

use crate::config::{Config, Settings};
use crate::limits::{GROUPS_PER_USER_MIN, SEGMENT_BYTES_MIN};

/// Whatever the file says, it is refused in one line or within the limits; what one file says wins over another.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once("\n---\n").unwrap_or((text, ""));
    let (Some(first), Some(second)) = (read(first), read(second)) else { return };
    assert_eq!(first.clone().over(Settings::default()), first, "nothing is under it");
    assert_eq!(Settings::default().over(second.clone()), second, "nothing is over it");
    assert_eq!(first.clone().over(first.clone()), first);
    let both = first.clone().over(second.clone());
    assert_eq!(both.cluster, first.cluster.clone().or(second.cluster.clone()));
    assert_eq!(both.groups_of, first.groups_of.clone().or(second.groups_of.clone()));
    for settings in [first, second, both] {
        match settings.clone().into_config() {
            Ok(config) => check(&config, &settings),
            Err(error) => assert_one_line(&error.to_string()),
        }
    }
}

fn read(text: &str) -> Option<Settings> {
    let read = Settings::from_toml(text);
    if let Err(error) = &read {
        assert_one_line(&error.to_string());
    }
    read.ok()
}

/// The program escapes what it prints; but a message of several lines would read as several messages.
fn assert_one_line(message: &str) {
    assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
}

fn check(config: &Config, settings: &Settings) {
    assert!(config.listen.ip().is_loopback() || settings.insecure_without_tls == Some(true), "{config:?}");
    assert!(!config.cluster.is_empty());
    assert!((SEGMENT_BYTES_MIN..=4096 << 20).contains(&config.segment_bytes), "{config:?}");
    assert!(config.retention_entries > 0 && config.retention_bytes > 0 && config.retention_age_ms > 0, "{config:?}");
    let limits = config.groups_of.values().chain([&config.groups_per_user]);
    assert!(limits.into_iter().all(|groups| *groups >= GROUPS_PER_USER_MIN), "{config:?}");
    let said = settings.groups_of.as_ref().map_or(0, std::collections::BTreeMap::len);
    assert_eq!(config.groups_of.len(), said, "nobody's limit is lost");
}

//! What every index does alike; run against each implementation.

use super::{Direction, IndexHome};

fn key(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Asserts the contract at an empty home.
pub(crate) fn holds(home: &impl IndexHome) {
    let mut index = home.open().unwrap();
    assert_eq!(index.value(b"a").unwrap(), None);
    let put = |text: &str| (key(text), Some(key(text)));
    index.apply(vec![put("b"), put("a"), put("c"), put("d")]).unwrap();
    index.apply(vec![(key("c"), None), (key("a"), Some(key("new"))), (key("x"), None)]).unwrap();
    assert_eq!(index.value(b"a").unwrap(), Some(key("new")));
    assert_eq!(index.value(b"c").unwrap(), None);
    let keys = |low: &str, high: &str, direction, limit| {
        let items = index.scan(low.as_bytes(), high.as_bytes(), direction, limit).unwrap();
        items.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(keys("a", "d", Direction::Ascending, 9), ["a", "b", "d"], "both ends are included");
    assert_eq!(keys("a", "c", Direction::Descending, 1), ["b"]);
    assert_eq!(keys("a", "d", Direction::Ascending, 2), ["a", "b"]);
    assert_eq!(keys("e", "z", Direction::Ascending, 2), [""; 0]);
    let largest = (key("large"), Some(vec![7; super::ITEM_BYTES_MAX - 5]));
    index.apply(vec![largest.clone()]).unwrap();
    index.checkpoint().unwrap();
    drop(index);

    let index = home.open().unwrap();
    assert_eq!(index.value(b"a").unwrap(), Some(key("new")), "it is there after opening again");
    assert_eq!(index.value(b"large").unwrap(), largest.1);
    drop(index);
    home.move_aside().unwrap();
    assert_eq!(home.open().unwrap().value(b"a").unwrap(), None, "moved aside, it starts empty");
}

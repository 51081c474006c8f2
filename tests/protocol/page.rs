//! Reads `docs/protocol.md`: its tables, its layouts, its vectors.
//!
//! * A **layout** is the first table under a heading of level 4 whose columns are `field`, `type`, `meaning`. The
//!   fields stand in the order of the bytes. A field that is there in some cases only has its condition in the first
//!   column: `` `owner` if `succession` = 1 ``, with several values separated by commas. A heading without such a
//!   table has no fields.
//! * A **vector** is a fenced block whose info string is `vector NAME`. Behind `#` stands, for people, what the bytes
//!   before it are; everything else is hexadecimal.

use std::collections::BTreeMap;

/// The text of the page.
pub(crate) fn text() -> String {
    std::fs::read_to_string(path()).expect("docs/protocol.md is there")
}

pub(crate) fn path() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")
}

/// One fenced `vector` block.
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) name: String,
    /// The lines between the fences.
    pub(crate) lines: String,
    pub(crate) bytes: Vec<u8>,
}

/// All vectors, in the order of the page.
pub(crate) fn vectors(page: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("```vector ") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let hex: String = block.iter().map(|line| line.split('#').next().unwrap_or_default()).collect();
            let block = block.iter().fold(String::new(), |text, line| text + line + "\n");
            vectors.push(Vector { name: name.trim().to_owned(), lines: block, bytes: bytes_of(&hex) });
        }
    }
    vectors
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "an odd number of digits in {hex}");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(|pair| byte(pair).unwrap_or_else(|| panic!("not hexadecimal: {hex}"))).collect()
}

/// The rows of the first table under a heading, each a list of cells without backticks; without the two head lines.
pub(crate) fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with('#'));
    section
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

/// One field of a layout.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// The field whose value decides whether this one is there, and the values with which it is.
    pub(crate) condition: Option<(String, Vec<u64>)>,
}

/// The layouts of the page by the name in their headings.
pub(crate) fn layouts(page: &str) -> BTreeMap<String, Vec<Field>> {
    let headings = page.lines().filter(|line| line.starts_with("#### "));
    headings
        .map(|heading| {
            let name = heading.trim_start_matches("#### ").split(' ').next().unwrap_or_default().to_owned();
            let fields = table(page, heading).iter().map(|row| field(row)).collect();
            (name, fields)
        })
        .collect()
}

fn field(row: &[String]) -> Field {
    let [name, kind, ..] = row else { panic!("a row of a layout has three columns: {row:?}") };
    let (name, condition) = match name.split_once(" if ") {
        None => (name.as_str(), None),
        Some((name, condition)) => {
            let (field, values) = condition.split_once('=').expect("a condition is `field` = values");
            let values = values.split(',').map(|value| value.trim().parse().expect("a number")).collect();
            (name, Some((field.trim().to_owned(), values)))
        }
    };
    Field { name: name.trim().to_owned(), kind: kind.clone(), condition }
}

/// What a body says, read by the page's layouts alone: pieces of bytes and what each is.
pub(crate) fn explain(layouts: &BTreeMap<String, Vec<Field>>, name: &str, body: &[u8]) -> Vec<(Vec<u8>, String)> {
    let mut walk = Walk { layouts, rest: body, pieces: Vec::new() };
    walk.layout(name, "");
    assert!(walk.rest.is_empty(), "{name}: {} bytes that the page does not explain", walk.rest.len());
    walk.pieces
}

struct Walk<'a> {
    layouts: &'a BTreeMap<String, Vec<Field>>,
    rest: &'a [u8],
    pieces: Vec<(Vec<u8>, String)>,
}

impl Walk<'_> {
    fn layout(&mut self, name: &str, prefix: &str) {
        let fields = self.layouts.get(name).unwrap_or_else(|| panic!("the page has no layout `{name}`"));
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for field in fields {
            let present = field.condition.as_ref().is_none_or(|(decider, values)| {
                numbers.get(decider.as_str()).is_some_and(|number| values.contains(number))
            });
            if present && let Some(number) = self.value(&field.kind, &format!("{prefix}{}", field.name)) {
                numbers.insert(&field.name, number);
            }
        }
    }

    /// Reads one value; gives it back if it is a number.
    fn value(&mut self, kind: &str, name: &str) -> Option<u64> {
        if let Some(item) = kind.strip_prefix("list of ") {
            self.list(item, name);
            return None;
        }
        if let Some(item) = kind.strip_prefix("sized ") {
            let bytes = self.take(4);
            let length = number(&bytes);
            let after = self.rest.len() - usize::try_from(length).expect("short");
            self.pieces.push((bytes, format!("{name}: {length} bytes")));
            self.value(item, name);
            assert_eq!(self.rest.len(), after, "the length of {name} is that of its content");
            return None;
        }
        let (bytes, shown) = match kind.trim_end_matches(" or none") {
            "u8" | "u16" | "u32" | "u64" => return Some(self.number(kind, name)),
            "uuid" => self.uuid(),
            "user" => self.sized(1),
            "text" => self.sized(2),
            "bytes" => self.sized(4),
            layout => {
                self.layout(layout, &format!("{name}."));
                return None;
            }
        };
        self.pieces.push((bytes, format!("{name} = {shown}")));
        None
    }

    fn list(&mut self, item: &str, name: &str) {
        let bytes = self.take(4);
        let count = number(&bytes);
        self.pieces.push((bytes, format!("{name}: {count}")));
        for index in 0..count {
            self.value(item, &format!("{name}[{index}]"));
        }
    }

    fn number(&mut self, kind: &str, name: &str) -> u64 {
        let bits: usize = kind.trim_start_matches('u').parse().expect("a width");
        let bytes = self.take(bits / 8);
        let number = number(&bytes);
        self.pieces.push((bytes, format!("{name} = {number}")));
        number
    }

    fn uuid(&mut self) -> (Vec<u8>, String) {
        let bytes = self.take(16);
        let uuid = uuid::Uuid::from_slice(&bytes).expect("16 bytes");
        (bytes, uuid.to_string())
    }

    fn sized(&mut self, prefix_bytes: usize) -> (Vec<u8>, String) {
        let mut bytes = self.take(prefix_bytes);
        let text = self.take(usize::try_from(number(&bytes)).expect("short"));
        let shown = format!("{:?}", String::from_utf8(text.clone()).expect("the page's vectors hold text"));
        bytes.extend(text);
        (bytes, shown)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (head, rest) = self.rest.split_at_checked(count).expect("the body is as long as its layout says");
        self.rest = rest;
        head.to_vec()
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

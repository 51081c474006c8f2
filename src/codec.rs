//! Big-endian reading and writing of fields, shared by the formats of the wire and of the disk.
//!
//! A [`Reader`] never panics and never allocates more than what has arrived; a [`Writer`] takes values whose types
//! already say that they fit. Formats are specified where they are used: `wire/` and `store/record.rs`.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use byteorder::{BigEndian, ByteOrder};

use crate::ids::{GroupId, NameError, OperationId, UserId};
use crate::limits::USER_BYTES_MAX;

/// Why bytes are not the value that was expected. Carries no text: a peer's bytes are never echoed from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end before the field does.
    Truncated,
    /// A length or a count is over its limit.
    TooLong,
    /// Text that is not UTF-8.
    NotUtf8,
    /// An id of zero bytes or a nil UUID.
    EmptyId,
    /// A discriminant or a number that has no meaning here.
    BadValue,
    /// A user id in a list that is empty, too long or not UTF-8.
    BadUser {
        /// Its position in the list, counted from 0.
        index: u32,
    },
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("the bytes end within a field"),
            Self::TooLong => f.write_str("a length is over its limit"),
            Self::NotUtf8 => f.write_str("a text is not UTF-8"),
            Self::EmptyId => f.write_str("an id is empty"),
            Self::BadValue => f.write_str("a value has no meaning here"),
            Self::BadUser { index } => {
                write!(f, "the user id at position {index} of the list is not 1 to {USER_BYTES_MAX} bytes of UTF-8")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<NameError> for DecodeError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Empty => Self::EmptyId,
            NameError::TooLong => Self::TooLong,
        }
    }
}

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A number in unsigned LEB128 (DWARF 5, 7.6), in as few bytes as it takes: one to ten.
    pub fn leb128(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return Err(DecodeError::BadValue);
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                // A last byte of nothing could have been left out.
                return if byte == 0 && shift > 0 { Err(DecodeError::BadValue) } else { Ok(value) };
            }
        }
        Err(DecodeError::BadValue)
    }

    /// A count of four bytes, at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u32()?).map_err(|_| DecodeError::TooLong)?;
        if count > max { Err(DecodeError::TooLong) } else { Ok(count) }
    }

    /// Sixteen bytes of a group id.
    pub fn group(&mut self) -> Result<GroupId, DecodeError> {
        GroupId::from_bytes(self.array()?).ok_or(DecodeError::EmptyId)
    }

    /// Sixteen bytes of a group id, or sixteen zeros for none.
    pub fn group_or_none(&mut self) -> Result<Option<GroupId>, DecodeError> {
        self.array().map(GroupId::from_bytes)
    }

    /// Sixteen bytes of an operation id.
    pub fn operation(&mut self) -> Result<OperationId, DecodeError> {
        OperationId::from_bytes(self.array()?).ok_or(DecodeError::EmptyId)
    }

    /// A user id: one byte of length, then the text.
    pub fn user(&mut self) -> Result<UserId, DecodeError> {
        self.user_or_none()?.ok_or(DecodeError::EmptyId)
    }

    /// A user id, or a length of zero for none.
    pub fn user_or_none(&mut self) -> Result<Option<UserId>, DecodeError> {
        let length = usize::from(self.u8()?);
        let bytes = self.take(length)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)?;
        Ok(Some(UserId::new(text)?))
    }

    /// A list of user ids: four bytes of count, at most `max`, then each.
    pub fn users(&mut self, max: usize) -> Result<Vec<UserId>, DecodeError> {
        let mut index = 0;
        self.list(max, 1, |reader| {
            let user = reader.user().map_err(|error| match error {
                DecodeError::Truncated => error,
                _ => DecodeError::BadUser { index },
            });
            index = index.saturating_add(1);
            user
        })
    }

    /// A text: two bytes of length, at most `max`, then UTF-8.
    pub fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(DecodeError::TooLong);
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::NotUtf8)
    }

    /// Opaque bytes: four bytes of length, at most `max`, then the bytes.
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.count(max)?;
        self.take(length)
    }

    /// A list: four bytes of count, at most `max`, then each item, which has at least `item_bytes_min` bytes.
    /// The count is believed only as far as the bytes that are there could hold it.
    pub fn list<T>(
        &mut self,
        max: usize,
        item_bytes_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(max)?;
        if count.saturating_mul(item_bytes_min) > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Appends fields to a vector.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `bytes`.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Bytes in the vector so far, those from before included.
    pub fn position(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    /// A number in unsigned LEB128: seven bits a byte, the lowest first, with the highest bit set in all but the last.
    pub fn leb128(&mut self, value: u64) {
        let mut rest = value;
        while rest > 0x7f {
            self.u8(u8::try_from(rest & 0x7f).unwrap_or(0x7f) | 0x80);
            rest >>= 7;
        }
        self.u8(u8::try_from(rest).unwrap_or(0x7f));
    }

    /// A count of four bytes. Counts are bounded by `limits.rs` long before they could not fit.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("counts are bounded by limits.rs"));
    }

    /// Sixteen bytes of a group id.
    pub fn group(&mut self, group: GroupId) {
        self.raw(group.as_bytes());
    }

    /// Sixteen bytes of an operation id.
    pub fn operation(&mut self, operation: OperationId) {
        self.raw(operation.as_bytes());
    }

    /// A user id: one byte of length, then the text.
    pub fn user(&mut self, user: &UserId) {
        self.user_or_none(Some(user));
    }

    /// A user id, or a length of zero for none.
    pub fn user_or_none(&mut self, user: Option<&UserId>) {
        let text = user.map_or("", UserId::as_str);
        self.u8(u8::try_from(text.len()).expect("a user id has at most 64 bytes"));
        self.raw(text.as_bytes());
    }

    /// A list of user ids: four bytes of count, then each.
    pub fn users<'u>(&mut self, users: impl ExactSizeIterator<Item = &'u UserId>) {
        self.count(users.len());
        for user in users {
            self.user(user);
        }
    }

    /// A text: two bytes of length, then UTF-8.
    pub fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("texts are bounded by limits.rs"));
        self.raw(text.as_bytes());
    }

    /// Opaque bytes: four bytes of length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Leaves four bytes for a length, writes `content`, and puts the length of it there.
    pub fn sized(&mut self, content: impl FnOnce(&mut Self)) {
        let start = self.position();
        self.u32(0);
        content(self);
        let length = self.position().saturating_sub(start).saturating_sub(4);
        let length = u32::try_from(length).expect("frames are bounded by limits.rs");
        if let Some(slot) = self.bytes.get_mut(start..).and_then(|tail| tail.get_mut(..4)) {
            BigEndian::write_u32(slot, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::new(text).expect("legal")
    }

    #[test]
    fn fields_read_back_as_they_were_written() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.u8(1);
        writer.u16(0x0203);
        writer.u32(0x0405_0607);
        writer.u64(0x0809_0a0b_0c0d_0e0f);
        writer.user(&user("алиса"));
        writer.users([user("49"), user("b")].iter());
        writer.text("title");
        writer.sized(|inner| inner.raw(b"body"));
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(reader.user(), Ok(user("алиса")));
        assert_eq!(reader.users(2), Ok(vec![user("49"), user("b")]));
        assert_eq!(reader.text(5), Ok("title"));
        assert_eq!(reader.bytes(4), Ok(&b"body"[..]));
        assert_eq!(reader.remaining(), 0);
        assert_eq!(reader.u8(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_count_is_believed_only_as_far_as_bytes_are_there() {
        let mut reader = Reader::new(&[0x00, 0x00, 0x27, 0x10, 0x01, b'x']);
        assert_eq!(reader.users(10_000), Err(DecodeError::Truncated));
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff]);
        assert_eq!(reader.bytes(64), Err(DecodeError::TooLong));
    }

    #[test]
    fn bad_names_are_told_apart() {
        assert_eq!(Reader::new(&[0]).user(), Err(DecodeError::EmptyId));
        assert_eq!(Reader::new(&[1, 0xff]).user(), Err(DecodeError::NotUtf8));
        let mut long = vec![65];
        long.extend_from_slice(&[b'x'; 65]);
        assert_eq!(Reader::new(&long).user(), Err(DecodeError::TooLong));
        assert_eq!(Reader::new(&[0, 0, 0, 2, 1, b'x', 0]).users(9), Err(DecodeError::BadUser { index: 1 }));
        assert_eq!(Reader::new(&[0; 16]).group(), Err(DecodeError::EmptyId));
        assert_eq!(Reader::new(&[0; 16]).operation(), Err(DecodeError::EmptyId));
    }

    #[test]
    fn numbers_of_any_size_come_back_from_leb128_and_have_one_form() {
        for (value, bytes) in [
            (0, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0x80, 1]),
            (624_485, vec![0xe5, 0x8e, 0x26]),
            (u64::MAX, [vec![0xff; 9], vec![1]].concat()),
        ] {
            let mut written = Vec::new();
            Writer::new(&mut written).leb128(value);
            assert_eq!(written, bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.leb128(), reader.remaining()), (Ok(value), 0));
            let cut = &bytes[..bytes.len() - 1];
            assert_eq!(Reader::new(cut).leb128(), Err(DecodeError::Truncated));
        }
        for bad in [vec![0x80, 0], vec![0xff, 0x80, 0], [vec![0xff; 9], vec![2]].concat(), vec![0xff; 11]] {
            assert_eq!(Reader::new(&bad).leb128(), Err(DecodeError::BadValue), "{bad:02x?}");
        }
    }
}

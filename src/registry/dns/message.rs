//! DNS messages (RFC 1035, RFC 3596): a question for the addresses of a name, and what a server answers.
//!
//! What a server sends is hostile: every length is checked, a name cannot lead round in circles, and an answer to another
//! question counts as none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const INTERNET: u16 = 1;
const ALIAS: u16 = 5;
/// The longest name and the longest part of one, as they stand in a message.
const LONGEST_NAME: usize = 255;
const LONGEST_LABEL: usize = 63;
/// So many aliases may lead to an address.
const MOST_ALIASES: usize = 16;
/// More addresses than anybody tries.
const MOST_ADDRESSES: usize = 64;

/// Sorts of addresses, by the number of their record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// `A`
    V4 = 1,
    /// `AAAA`
    V6 = 28,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// As in a message, in lower case.
    name: Vec<u8>,
    family: Family,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses of the name; none where it has none of this sort, or does not exist.
    Addresses(Vec<IpAddr>),
    /// There is more, which is to be asked for by TCP.
    Truncated,
    /// The server cannot tell, for this reason.
    Failed(&'static str),
}

impl Question {
    /// Asks for addresses of `name`; `None` if no name in the DNS can be like that.
    pub(super) fn new(name: &str, family: Family) -> Option<Self> {
        let mut bytes = Vec::with_capacity(name.len() + 2);
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|n| (1..=LONGEST_LABEL).contains(&usize::from(*n)))?;
            bytes.push(length);
            bytes.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        bytes.push(0);
        (bytes.len() <= LONGEST_NAME).then_some(Self { name: bytes, family })
    }

    /// The message with this number: one question, to be answered with the help of other servers.
    pub(super) fn message(&self, id: u16) -> Vec<u8> {
        const RECURSION_DESIRED: u16 = 0x0100;
        let mut message = Vec::with_capacity(16 + self.name.len());
        for number in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
            message.extend(number.to_be_bytes());
        }
        message.extend(&self.name);
        message.extend((self.family as u16).to_be_bytes());
        message.extend(INTERNET.to_be_bytes());
        message
    }

    /// What a message answers to the question with this number; `None` if it is not an answer to it.
    pub(super) fn answer(&self, id: u16, message: &[u8]) -> Option<Answer> {
        let mut reader = Reader { message, at: 0 };
        let [got, flags, questions, records, _, _] = reader.numbers()?;
        let is_response = flags & 0x8000 != 0 && flags & 0x7800 == 0;
        if got != id || !is_response || questions != 1 || reader.question()? != (self.name.clone(), self.family as u16)
        {
            return None;
        }
        if flags & 0x0200 != 0 {
            return Some(Answer::Truncated);
        }
        Some(match flags & 0xf {
            0 => reader.records(records).map_or(Answer::Failed("it sent a broken answer"), |records| {
                Answer::Addresses(addresses(&self.name, self.family, &records))
            }),
            3 => Answer::Addresses(Vec::new()),
            1 => Answer::Failed("it does not understand the question"),
            2 => Answer::Failed("it failed to find out"),
            4 => Answer::Failed("it does not answer such questions"),
            5 => Answer::Failed("it refuses to answer"),
            _ => Answer::Failed("it reports an unknown error"),
        })
    }
}

/// A record that matters here.
struct Record {
    name: Vec<u8>,
    data: Data,
}

enum Data {
    Address(IpAddr),
    /// The name that is meant by its name.
    Alias(Vec<u8>),
}

/// The addresses that `name` leads to, by its own records or through aliases.
fn addresses(name: &[u8], family: Family, records: &[Record]) -> Vec<IpAddr> {
    let mut name = name;
    for _ in 0..MOST_ALIASES {
        let own = || records.iter().filter(|record| record.name == name);
        let found = own().filter_map(|record| match record.data {
            Data::Address(address) if address.is_ipv4() == (family == Family::V4) => Some(address),
            _ => None,
        });
        let found: Vec<_> = found.take(MOST_ADDRESSES).collect();
        let alias = own().find_map(|record| match &record.data {
            Data::Alias(target) => Some(target.as_slice()),
            Data::Address(_) => None,
        });
        match alias {
            Some(target) if found.is_empty() => name = target,
            _ => return found,
        }
    }
    Vec::new()
}

/// Takes a message apart; `None` where it ends too early.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }

    fn question(&mut self) -> Option<(Vec<u8>, u16)> {
        let name = self.name()?;
        let [kind, class] = self.numbers()?;
        (class == INTERNET).then_some((name, kind))
    }

    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..count {
            records.extend(self.record()?);
        }
        Some(records)
    }

    /// The next record, read to its end; `Some(None)` for one that does not matter here.
    fn record(&mut self) -> Option<Option<Record>> {
        let name = self.name()?;
        let [kind, class, _, _] = self.numbers()?;
        let length = usize::from(self.number()?);
        let end = self.at.checked_add(length).filter(|end| *end <= self.message.len())?;
        let data = match (class, kind, length) {
            (INTERNET, ALIAS, _) => Some(Data::Alias(self.name()?)),
            (INTERNET, 1, 4) => Some(Data::Address(Ipv4Addr::from(self.array::<4>()?).into())),
            (INTERNET, 28, 16) => Some(Data::Address(Ipv6Addr::from(self.array::<16>()?).into())),
            _ => None,
        };
        self.at = end;
        Some(data.map(|data| Record { name, data }))
    }

    /// A name in lower case, written out where it refers to an earlier one.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut reader = Reader { message: self.message, at: self.at };
        // Where reading goes on once the name refers to an earlier one. A reference leads further to the front than any
        // before it, so that there is an end.
        let (mut after, mut front) = (None, self.at);
        loop {
            let [length] = reader.array()?;
            match length {
                0 => break,
                1..=63 => {
                    name.push(length);
                    name.extend(reader.bytes(length.into())?.iter().map(u8::to_ascii_lowercase));
                }
                0xc0.. => {
                    let [low] = reader.array()?;
                    after.get_or_insert(reader.at);
                    reader.at = (usize::from(length & 0x3f) << 8) | usize::from(low);
                    if reader.at >= front {
                        return None;
                    }
                    front = reader.at;
                }
                _ => return None,
            }
            if name.len() >= LONGEST_NAME {
                return None;
            }
        }
        name.push(0);
        self.at = after.unwrap_or(reader.at);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: u16 = 0x1234;

    fn question() -> Question {
        Question::new("Registry.Example", Family::V4).unwrap()
    }

    /// A record; its name is a reference to the question's unless it is given.
    fn record(name: Option<&str>, kind: u16, data: &[u8]) -> Vec<u8> {
        let name = name.map_or(vec![0xc0, 12], |name| Question::new(name, Family::V4).unwrap().name);
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&name[..], &kind.to_be_bytes(), &[0, 1], &[0, 0, 0, 9], &length, data].concat()
    }

    /// An answer to [`question`].
    fn message(flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = question().message(ID);
        message[2..4].copy_from_slice(&(0x8180 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        message.extend(records.concat());
        message
    }

    fn answer(message: &[u8]) -> Option<Answer> {
        question().answer(ID, message)
    }

    fn found(addresses: &[[u8; 4]]) -> Option<Answer> {
        Some(Answer::Addresses(addresses.iter().map(|a| Ipv4Addr::from(*a).into()).collect()))
    }

    #[test]
    fn a_question_is_what_the_standard_says() {
        let want = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08registry\x07example\x00\x00\x01\x00\x01";
        assert_eq!(question().message(ID), want);
        let v6 = Question::new("a", Family::V6).unwrap().message(7);
        assert!(v6.ends_with(b"\x01a\x00\x00\x1c\x00\x01"));
        let long = format!("{}.{}", "a".repeat(63), "b".repeat(63));
        assert!(Question::new(&long, Family::V4).is_some());
        for bad in ["", ".", "a..b", ".a", &"a".repeat(64), &format!("{long}.{long}")] {
            assert_eq!(Question::new(bad, Family::V4), None, "{bad}");
        }
    }

    #[test]
    fn addresses_are_found() {
        let (one, two) = (record(None, 1, &[10, 0, 0, 1]), record(None, 1, &[10, 0, 0, 2]));
        assert_eq!(answer(&message(0, &[one.clone(), two.clone()])), found(&[[10, 0, 0, 1], [10, 0, 0, 2]]));
        // Records of other names and sorts, and of impossible lengths, are none.
        let others = [
            record(Some("other.example"), 1, &[6, 6, 6, 6]),
            record(None, 28, &[6; 16]),
            record(None, 16, b"\x04text"),
            record(None, 1, &[6; 5]),
            one,
        ];
        assert_eq!(answer(&message(0, &others)), found(&[[10, 0, 0, 1]]));
        assert_eq!(answer(&message(0, &[])), found(&[]));
        assert_eq!(answer(&message(3, &[two])), found(&[]));
        let v6 = Question::new("a", Family::V6).unwrap();
        let mut reply = v6.message(ID);
        reply[2] |= 0x80;
        reply[7] = 1;
        reply.extend(record(None, 28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(v6.answer(ID, &reply), Some(Answer::Addresses(vec!["2001:db8::1".parse().unwrap()])));
    }

    #[test]
    fn aliases_are_followed() {
        let name = |text: &str| Question::new(text, Family::V4).unwrap().name;
        let last = record(Some("c.example"), 1, &[10, 0, 0, 1]);
        let alias = |from, to: &str| record(from, 5, &name(to));
        // In any order and any case; the target may refer to the question's name.
        let chain = [last.clone(), alias(Some("B.example"), "C.EXAMPLE"), alias(None, "b.example")];
        assert_eq!(answer(&message(0, &chain)), found(&[[10, 0, 0, 1]]));
        let compressed = [record(None, 5, b"\x01c\xc0\x15"), last];
        assert_eq!(answer(&message(0, &compressed)), found(&[[10, 0, 0, 1]]));
        let circle = [alias(None, "b.example"), alias(Some("b.example"), "registry.example")];
        assert_eq!(answer(&message(0, &circle)), found(&[]));
        assert_eq!(answer(&message(0, &[alias(None, "nowhere.example")])), found(&[]));
    }

    #[test]
    fn answers_to_others_are_none() {
        let good = message(0, &[record(None, 1, &[6, 6, 6, 6])]);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            answer(&bytes)
        };
        assert!(answer(&good).is_some());
        for (what, got) in [
            ("another number", changed(1, 0)),
            ("a question", changed(2, 0x01)),
            ("another operation", changed(2, 0xa8)),
            ("no question", changed(5, 0)),
            ("another name", changed(13, b'x')),
            ("another sort", changed(31, 28)),
            ("another class", changed(33, 3)),
            ("nothing", answer(&[])),
            ("only a header", answer(&good[..12])),
        ] {
            assert_eq!(got, None, "{what}");
        }
        assert!(matches!(changed(13, b'R'), Some(Answer::Addresses(_))), "case is no difference");
    }

    #[test]
    fn failures_and_truncation_are_told() {
        assert_eq!(answer(&message(0x0200, &[])), Some(Answer::Truncated));
        for code in [1, 2, 4, 5, 9] {
            assert!(matches!(answer(&message(code, &[])), Some(Answer::Failed(_))), "{code}");
        }
        let broken = Some(Answer::Failed("it sent a broken answer"));
        let good = message(0, &[record(None, 1, &[10, 0, 0, 1])]);
        for end in 34..good.len() {
            assert_eq!(answer(&good[..end]), broken, "{end} bytes");
        }
        for name in [&b"\xc0\x22"[..], b"\xc0\x24", b"\xff\xff", b"\x40a", b"\x80a", b"\x3f"] {
            let bytes = [name, &[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]].concat();
            assert_eq!(answer(&message(0, &[bytes])), broken, "{name:?}");
        }
    }

    #[test]
    fn a_name_that_grows_without_end_is_refused() {
        // Each name is a label and a reference to the one before.
        let mut bytes = vec![0; 12];
        let mut last = bytes.len();
        bytes.extend(b"\x01a\x00");
        for _ in 0..200 {
            let at = bytes.len();
            bytes.extend([1, b'a', 0xc0 | u8::try_from(last >> 8).unwrap(), u8::try_from(last & 0xff).unwrap()]);
            last = at;
        }
        assert_eq!(Reader { message: &bytes, at: last }.name(), None);
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0..40usize) {
            answer(&bytes);
            // The same behind a header and a question that are right.
            let mut long = message(0, &[]);
            long[6..8].copy_from_slice(&[0, 40]);
            long.truncate(long.len() - cut.min(34));
            long.extend(&bytes);
            answer(&long);
        }

        #[test]
        fn a_changed_message_is_read_or_refused(at in 0..80usize, to in any::<u8>()) {
            let mut bytes = message(0, &[record(None, 5, b"\x01c\xc0\x15"), record(Some("c.example"), 1, &[1, 2, 3, 4])]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            answer(&bytes);
        }

        #[test]
        fn names_come_back(labels in prop::collection::vec("[a-z0-9_-]{1,63}", 1..6)) {
            if let Some(question) = Question::new(&labels.join("."), Family::V6) {
                let mut message = question.message(ID);
                message[2] |= 0x80;
                prop_assert_eq!(question.answer(ID, &message), Some(Answer::Addresses(vec![])));
            }
        }
    }
}

//! The strings and numbers of SSH's messages and key files: RFC 4251, section 5.

/// Reads one after the other; `None` where there isn't enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl<'a> Wire<'a> {
    pub(super) fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    /// A positive number of any size, without leading zeros.
    pub(super) fn mpint(&mut self) -> Option<&'a [u8]> {
        let number = self.string()?;
        if number.first().is_some_and(|b| b & 0x80 != 0) {
            return None;
        }
        Some(trimmed(number))
    }
}

/// A number's bytes without leading zeros.
pub(super) fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Appends a string with its length.
pub(super) fn put(to: &mut Vec<u8>, string: &[u8]) {
    // Nothing here comes near four gigabytes: key files and messages are bounded where they are read.
    to.extend(u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(string);
}

/// Appends a positive number.
pub(super) fn put_mpint(to: &mut Vec<u8>, number: &[u8]) {
    let number = trimmed(number);
    let sign: &[u8] = if number.first().is_some_and(|b| b & 0x80 != 0) { &[0] } else { &[] };
    put(to, &[sign, number].concat());
}

/// Strings one after the other.
pub(super) fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::new();
    parts.iter().for_each(|part| put(&mut all, part));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_out() {
        let mut all = strings(&[b"a", b""]);
        for number in [&[0x80, 1][..], &[0, 0, 1], &[]] {
            put_mpint(&mut all, number);
        }
        assert_eq!(all[9..], [0, 0, 0, 3, 0, 0x80, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0]);
        let mut wire = Wire(&all);
        assert_eq!((wire.string(), wire.string()), (Some(&b"a"[..]), Some(&b""[..])));
        assert_eq!((wire.mpint(), wire.mpint(), wire.mpint()), (Some(&[0x80, 1][..]), Some(&[1][..]), Some(&[][..])));
        assert_eq!((wire.number(), wire.string()), (None, None));
        assert_eq!(Wire(&[0, 0, 0, 1, 0x80]).mpint(), None, "negative");
        assert_eq!(Wire(&[0xff, 0xff, 0xff, 0xff, 1]).string(), None);
    }
}

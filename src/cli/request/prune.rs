//! What `kiln prune` is asked for.

use super::{values, wrong};
use crate::cli::args;
use crate::report::Problem;
use crate::store::Sort;
use std::time::Duration;

/// `kiln prune`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneRequest {
    /// The cache too.
    pub all: bool,
    /// Only what wasn't used for so long.
    pub unused_for: Option<Duration>,
    /// Only things of this sort.
    pub only: Option<Sort>,
    /// Bytes that may stay.
    pub keep: Option<u64>,
}

/// A filter or a size speaks of everything that no image needs, so the cache is meant too.
pub(super) fn prune(p: &args::Prune) -> Result<PruneRequest, Problem> {
    let mut request = PruneRequest { all: p.all || !p.filter.is_empty(), ..PruneRequest::default() };
    for text in &p.filter {
        let refuse = |why: &str| wrong("--filter", text, why);
        match text.split_once('=') {
            Some(("until", age)) => {
                let age = age_of(age).ok_or_else(|| refuse("want an age, as in 24h, 90m or 7d"))?;
                request.unused_for = request.unused_for.max(Some(age));
            }
            Some(("type", "exec.cachemount" | "cachemount")) => request.only = Some(Sort::CacheMounts),
            Some(("type", "regular")) => request.only = Some(Sort::Regular),
            Some(("type", _)) => return Err(refuse("the types are cachemount and regular")),
            _ => return Err(refuse("want until=AGE or type=TYPE")),
        }
    }
    if let Some(text) = &p.keep_storage {
        request.keep = Some(values::bytes(text).map_err(|why| wrong("--keep-storage", text, &why))?);
        request.all = true;
    }
    Ok(request)
}

/// Numbers with units, one after the other, as in `1h30m`; none below a second.
fn age_of(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(unit)?;
        let mut tail = tail.chars();
        let factor = match tail.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        seconds = number.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(seconds)?;
        rest = tail.as_str();
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(age_of(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "24", "1x", "-1h", "1h30", "99999999999999999999h", "18446744073709551615h", "1é"] {
            assert_eq!(age_of(text), None, "{text}");
        }
    }

    #[test]
    fn filters_and_sizes_mean_the_cache_too() {
        let ask = |filter: &[&str], keep: Option<&str>| {
            let filter = filter.iter().map(|f| f.to_string()).collect();
            prune(&args::Prune { all: false, filter, keep_storage: keep.map(str::to_owned) })
        };
        assert_eq!(ask(&[], None).unwrap(), PruneRequest::default());
        let request = ask(&["until=1h", "type=cachemount"], Some("1k")).unwrap();
        let age = Some(Duration::from_secs(3600));
        assert_eq!(
            request,
            PruneRequest { all: true, unused_for: age, only: Some(Sort::CacheMounts), keep: Some(1024) }
        );
        for (filter, keep) in [
            (&["until"][..], None),
            (&["until=x"], None),
            (&["type=frontend"], None),
            (&["a=b"], None),
            (&[], Some("x")),
        ] {
            assert!(ask(filter, keep).is_err(), "{filter:?} {keep:?}");
        }
    }
}

//! What the machine's processors have done.

/// The time of all processors since the machine started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorTime {
    idle: u64,
    all: u64,
}

impl ProcessorTime {
    /// Until now, by `/proc/stat`; `None` where that can't be read.
    pub fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line: user, nice, system, idle, waiting for a disk, interrupts, soft ones, stolen; then what is counted twice.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = line.split_whitespace().take(8).map(|n| n.parse().ok()).collect::<Option<_>>()?;
        let [idle, waiting] = [*times.get(3)?, *times.get(4)?];
        Some(Self { idle: idle.saturating_add(waiting), all: times.iter().fold(0, |sum, n| sum.saturating_add(*n)) })
    }

    /// Whether more than half of the time since then was idle.
    pub fn is_idle_since(self, before: Self) -> bool {
        let all = self.all.saturating_sub(before.all);
        all > 0 && self.idle.saturating_sub(before.idle) * 2 > all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_time_decides() {
        let at = |text| ProcessorTime::parse(text).unwrap();
        let before = at("cpu  10 0 10 100 0 0 0 0 7 7\ncpu0 1\n");
        assert!(at("cpu  14 0 10 104 1 0 0 0 9 9\n").is_idle_since(before));
        assert!(!at("cpu  15 0 10 104 1 0 0 0 9 9\n").is_idle_since(before));
        assert!(!before.is_idle_since(before));
        assert_eq!(ProcessorTime::parse("cpu  1 2 x 4 5\n"), None);
        assert_eq!(ProcessorTime::parse(""), None);
        assert!(ProcessorTime::now().is_some());
    }
}

//! The mtimes of steps.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// 1980-01-01: older times are what broken clocks and zip files say.
const EARLIEST: i64 = 315_532_800;
/// 2100-01-01.
const LATEST: i64 = 4_102_444_800;
/// Steps after which time stands still.
const STEPS: i64 = 1_000;

/// Which mtime a step's paths get.
///
/// Time starts at `origin` and goes on by a second a step, so that what a step makes
/// is newer than what it found (make and cargo compare), and the same whenever and
/// wherever the build runs. The origin is the base image's `created`, or
/// `SOURCE_DATE_EPOCH - 1000` so that no path is newer than `SOURCE_DATE_EPOCH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970.
    pub origin: i64,
    /// How many steps there were since.
    pub steps: i64,
    /// `SOURCE_DATE_EPOCH` that RUN sees.
    pub epoch: i64,
}

impl Clock {
    /// A clock at the first step on a base image that was `created` then (RFC 3339), or
    /// on nothing; `epoch` is the user's `SOURCE_DATE_EPOCH`.
    pub fn new(epoch: Option<i64>, created: Option<&str>) -> Self {
        let created = created
            .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
            .map_or(EARLIEST, OffsetDateTime::unix_timestamp)
            .clamp(EARLIEST, LATEST);
        Self {
            origin: epoch.map_or(created, |epoch| epoch.saturating_sub(STEPS)),
            steps: 0,
            epoch: epoch.unwrap_or(created),
        }
    }

    /// The mtime of the next step; the clock goes on.
    pub fn tick(&mut self) -> i64 {
        let now = self.origin.saturating_add(self.steps.min(STEPS));
        self.steps += 1;
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_ticks() {
        let mut clock = Clock::new(None, Some("2024-05-01T00:00:00Z"));
        assert_eq!(clock.origin, 1_714_521_600);
        assert_eq!(clock.tick(), 1_714_521_600);
        assert_eq!(clock.tick(), 1_714_521_601);
        assert_eq!(clock.epoch, 1_714_521_600);
        for _ in 0..2_000 {
            clock.tick();
        }
        assert_eq!(clock.tick(), 1_714_522_600);

        assert_eq!(Clock::new(None, None).origin, EARLIEST);
        let year_one = Some("0001-01-01T00:00:00Z");
        assert_eq!(Clock::new(None, year_one).origin, EARLIEST);
        let explicit = Clock::new(Some(5_000), year_one);
        assert_eq!((explicit.origin, explicit.epoch), (4_000, 5_000));
    }
}

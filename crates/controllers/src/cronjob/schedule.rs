//! When cron schedules are due.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use pintle_api::cron::{self, Due, Fields};

/// A schedule, and the time zone it names itself, if it does.
#[derive(Clone, Debug)]
pub struct Schedule {
    due: Due,
    zone: Option<TimeZone>,
}

/// A schedule that names no day of the next years never runs.
const YEARS: i16 = 5;

fn has(bits: u64, n: i8) -> bool {
    bits & (1 << n) != 0
}

fn fits_day(fields: &Fields, t: DateTime) -> bool {
    let day = has(fields.days, t.day());
    let weekday = has(fields.weekdays, t.date().weekday().to_sunday_zero_offset());
    has(fields.months, t.month()) && if fields.both { day && weekday } else { day || weekday }
}

impl Schedule {
    /// Parses a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let cron::Schedule { zone, due } = cron::Schedule::parse(text)?;
        let zone = zone.map(|name| TimeZone::get(&name).map_err(|e| format!("provided bad location {name}: {e}")));
        Ok(Self { due, zone: zone.transpose()? })
    }

    /// The first time after `after` at which it runs; `None` when there is none in the next years.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        let fields = match &self.due {
            Due::At(fields) => fields,
            Due::Every(seconds) => {
                let next = after.checked_add(SignedDuration::from_secs(*seconds)).ok()?;
                return Timestamp::from_second(next.as_second()).ok();
            }
        };
        let start = after.to_zoned(zone.clone()).datetime();
        let mut t = start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let limit = start.year().saturating_add(YEARS);
        while t.year() <= limit {
            if !fits_day(fields, t) {
                t = t.date().tomorrow().ok()?.at(0, 0, 0, 0);
                continue;
            }
            if !has(fields.hours, t.hour()) {
                t = t.date().at(t.hour(), 0, 0, 0).checked_add(1.hour()).ok()?;
                continue;
            }
            if !has(fields.minutes, t.minute()) {
                t = t.checked_add(1.minute()).ok()?;
                continue;
            }
            let at = zone.to_ambiguous_zoned(t);
            // A time that a clock change skips does not happen that day; one that happens twice counts once.
            if !at.is_ambiguous() || !matches!(at.offset(), jiff::tz::AmbiguousOffset::Gap { .. }) {
                let found = at.compatible().ok()?.timestamp();
                if found > after {
                    return Some(found);
                }
            }
            t = t.checked_add(1.minute()).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_times() {
        for (text, zone, after, want) in [
            ("*/5 * * * *", "UTC", "2024-01-01T00:00:00Z", "2024-01-01T00:05:00Z"),
            ("*/5 * * * *", "UTC", "2024-01-01T00:04:59Z", "2024-01-01T00:05:00Z"),
            ("0 3 * * 1-5", "UTC", "2024-01-05T04:00:00Z", "2024-01-08T03:00:00Z"),
            ("0 0 13 * 5", "UTC", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 29 2 *", "UTC", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@hourly", "UTC", "2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z"),
            ("30 8 * jan,mar sun", "UTC", "2024-01-29T00:00:00Z", "2024-03-03T08:30:00Z"),
            ("0 9 * * *", "America/New_York", "2024-07-01T00:00:00Z", "2024-07-01T13:00:00Z"),
            // 02:30 does not exist on the day the clocks go forward.
            ("30 2 * * *", "America/New_York", "2024-03-10T00:00:00Z", "2024-03-11T06:30:00Z"),
            // The schedule's own zone comes first.
            ("CRON_TZ=Asia/Tokyo 0 9 * * *", "UTC", "2024-01-01T01:00:00Z", "2024-01-02T00:00:00Z"),
            ("1-10/3,50 * * * *", "UTC", "2024-01-01T00:08:00Z", "2024-01-01T00:10:00Z"),
            ("5/4294967295 * * * *", "UTC", "2024-01-01T00:00:00Z", "2024-01-01T00:05:00Z"),
            ("@every 1h30m", "UTC", "2024-01-01T00:00:00.5Z", "2024-01-01T01:30:00Z"),
            // What is less than a second is one: time must pass.
            ("@every 500ms", "UTC", "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
            ("@every -1h", "UTC", "2024-01-01T00:00:00Z", "2024-01-01T00:00:01Z"),
        ] {
            let zone = TimeZone::get(zone).unwrap();
            let got = Schedule::parse(text).unwrap().next(after.parse().unwrap(), &zone);
            assert_eq!(got.map(|t| t.to_string()).as_deref(), Some(want), "{text}");
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn refuses() {
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("TZ=No/Where * * * * *", "provided bad location No/Where"),
        ] {
            let found = Schedule::parse(bad).unwrap_err();
            assert!(found.starts_with(why), "{found}");
        }
    }
}

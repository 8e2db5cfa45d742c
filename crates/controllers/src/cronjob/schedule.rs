//! Cron schedules: five fields or a macro, as upstream's parser takes them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use pintle_api::duration;

/// A schedule: bits of the minutes, hours, days, months and weekdays it names.
#[derive(Clone, Debug)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day must fit both fields; when both are restricted one of them is enough.
    both: bool,
    /// `@every`: the time between runs instead, in whole seconds and at least one.
    every: Option<SignedDuration>,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that names no day of the next years never runs.
const YEARS: i16 = 5;

fn number(text: &str, names: &[&str], base: u32) -> Result<u32, String> {
    if let Some(i) = names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
        return Ok(base + u32::try_from(i).unwrap_or(0));
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}"))
}

/// A field as bits, and whether it begins with a star.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<(u64, bool), String> {
    let mut bits = 0u64;
    let mut star = false;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step, &[], 0)?)),
            None => (part, None),
        };
        let (from, to) = if range == "*" || range == "?" {
            star |= step.is_none_or(|s| s == 1);
            (min, max)
        } else if let Some((from, to)) = range.split_once('-') {
            (number(from, names, min)?, number(to, names, min)?)
        } else {
            let n = number(range, names, min)?;
            (n, if step.is_some() { max } else { n })
        };
        // Sunday is 0 and, in ranges that end the week, 7.
        let top = if max == 6 { 7 } else { max };
        if from < min {
            return Err(format!("beginning of range ({from}) below minimum ({min}): {part}"));
        }
        if to > top {
            return Err(format!("end of range ({to}) above maximum ({max}): {part}"));
        }
        if from > to {
            return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        for i in (from..=to).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            bits |= 1 << if max == 6 { i % 7 } else { i };
        }
    }
    Ok((bits, star))
}

impl Schedule {
    /// Parses a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(every) = fields.strip_prefix("@every ") {
            let nanos = duration::nanoseconds(every).map_err(|e| format!("failed to parse duration {text}: {e}"))?;
            let every = Some(SignedDuration::from_secs((nanos / 1_000_000_000).max(1)));
            return Ok(Self { minutes: 0, hours: 0, days: 0, months: 0, weekdays: 0, both: true, every });
        }
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {parts:?}", parts.len()));
        };
        let (minutes, _) = field(minutes, 0, 59, &[])?;
        let (hours, _) = field(hours, 0, 23, &[])?;
        let (days, any_day) = field(days, 1, 31, &[])?;
        let (months, _) = field(months, 1, 12, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, 0, 6, &DAYS)?;
        Ok(Self { minutes, hours, days, months, weekdays, both: any_day || any_weekday, every: None })
    }

    fn fits_day(&self, t: DateTime) -> bool {
        let has = |bits: u64, n: i8| bits & (1 << n) != 0;
        let day = has(self.days, t.day());
        let weekday = has(self.weekdays, t.date().weekday().to_sunday_zero_offset());
        has(self.months, t.month()) && if self.both { day && weekday } else { day || weekday }
    }

    /// The first time after `after` at which it runs; `None` when there is none in the next years.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Some(every) = self.every {
            return Timestamp::from_second(after.checked_add(every).ok()?.as_second()).ok();
        }
        let start = after.to_zoned(zone.clone()).datetime();
        let mut t = start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let limit = start.year().saturating_add(YEARS);
        let has = |bits: u64, n: i8| bits & (1 << n) != 0;
        while t.year() <= limit {
            if !self.fits_day(t) {
                t = t.date().tomorrow().ok()?.at(0, 0, 0, 0);
                continue;
            }
            if !has(self.hours, t.hour()) {
                t = t.date().at(t.hour(), 0, 0, 0).checked_add(1.hour()).ok()?;
                continue;
            }
            if !has(self.minutes, t.minute()) {
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
            ("0 12 * * 7", "UTC", "2024-01-01T00:00:00Z", "2024-01-07T12:00:00Z"),
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
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "@never",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}

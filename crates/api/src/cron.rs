//! Cron schedules, in upstream's grammar: five fields, or a descriptor such as `@daily` or `@every 1h`.

/// A field: its least and greatest value, and the names that stand for values, from the least on.
type Field = (u32, u32, &'static [&'static str]);

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// At the times of the calendar that its fields name.
    At(Fields),
    /// Again after this many seconds, at least one.
    Every(i64),
}

/// The values that the fields of a schedule name, each a bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Minutes of an hour.
    pub minutes: u64,
    /// Hours of a day.
    pub hours: u64,
    /// Days of a month.
    pub days: u64,
    /// Months, from 1.
    pub months: u64,
    /// Days of a week, Sunday being 0.
    pub weekdays: u64,
    /// Whether a day must fit both fields of days; when both are restricted one of them is enough.
    pub both: bool,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The time zone it names itself, which new ones may not.
    pub zone: Option<String>,
    /// When it is due.
    pub due: Due,
}

impl Schedule {
    /// Parses a schedule.
    ///
    /// # Errors
    /// What is wrong, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        let (zone, text) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            Some(rest) => {
                let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (Some(zone.to_owned()), rest.trim())
            }
            None => (None, text),
        };
        let due = if text.starts_with('@') { descriptor(text)? } else { Due::At(fields(text)?) };
        Ok(Self { zone, due })
    }
}

fn descriptor(text: &str) -> Result<Due, String> {
    if let Some((_, same)) = DESCRIPTORS.iter().find(|(name, _)| *name == text) {
        return fields(same).map(Due::At);
    }
    let Some(every) = text.strip_prefix("@every ") else { return Err(format!("unrecognized descriptor: {text}")) };
    let nanos = crate::duration::nanoseconds(every).map_err(|e| format!("failed to parse duration {text}: {e}"))?;
    Ok(Due::Every((nanos / 1_000_000_000).max(1)))
}

fn fields(text: &str) -> Result<Fields, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    let mut found = [(0_u64, false); 5];
    for ((bits, star), (part, of)) in found.iter_mut().zip(parts.iter().zip(FIELDS)) {
        // Empty parts are passed over.
        for range_text in part.split(',').filter(|p| !p.is_empty()) {
            let (more, any) = range(range_text, of)?;
            *bits |= more;
            *star |= any;
        }
    }
    let [(minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday)] = found;
    Ok(Fields { minutes, hours, days, months, weekdays, both: any_day || any_weekday })
}

/// `*`, `a`, `a-b`, each with or without `/step`: the values, and whether it is just a star.
fn range(text: &str, (min, max, names): Field) -> Result<(u64, bool), String> {
    let mut parts = text.split('/');
    let span: Vec<&str> = parts.next().unwrap_or_default().split('-').collect();
    let steps: Vec<&str> = parts.collect();
    let mut star = false;
    let (low, mut high) = if matches!(span[0], "*" | "?") {
        star = true;
        (min, max)
    } else {
        let low = value(span[0], min, names)?;
        match span[..] {
            [_] => (low, low),
            [_, high] => (low, value(high, min, names)?),
            _ => return Err(format!("too many hyphens: {text}")),
        }
    };
    let step = match steps[..] {
        [] => 1,
        [step] => {
            if span.len() == 1 {
                high = max;
            }
            let step = number(step)?;
            star &= step <= 1;
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if low < min {
        return Err(format!("beginning of range ({low}) below minimum ({min}): {text}"));
    }
    if high > max {
        return Err(format!("end of range ({high}) above maximum ({max}): {text}"));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok(((low..=high).step_by(step).fold(0, |bits, n| bits | 1 << n), star))
}

fn value(text: &str, min: u32, names: &[&str]) -> Result<u32, String> {
    let name = (min..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text));
    name.map_or_else(|| number(text), |(n, _)| Ok(n))
}

/// A number as Go's `strconv.Atoi` reads it.
fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let failed = |why| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": {why}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    let number: i64 = text.parse().map_err(|_| failed("value out of range"))?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    // What is greater is beyond every field, and as a step no other than this.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Fields {
        match Schedule::parse(text).map(|s| s.due) {
            Ok(Due::At(fields)) => fields,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_fields_name() {
        assert_eq!(at("*/15 0 1 1 *").minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(at("1-10/3,50 0 1 1 *").minutes, 0b100_1001_0010 | 1 << 50);
        assert_eq!(at("50/4 0 1 1 *").minutes, 1 << 50 | 1 << 54 | 1 << 58);
        assert_eq!(at("5/4294967296 0 1 1 *").minutes, 1 << 5);
        assert_eq!(at("0 0 ? jan-MAR sun,Sat"), at("0 0 * 1-3 0,6"));
        assert_eq!(at("0, 0 1 1 *"), at("0 0 1 1 *"));
        assert_eq!(at("@weekly"), at("0 0 * * 0"));
        for (text, both) in [("0 0 1 * *", true), ("0 0 * * 1", true), ("0 0 1 * 1", false), ("0 0 */2 * 1", false)] {
            assert_eq!(at(text).both, both, "{text}");
        }
        let every = |text: &str| Schedule::parse(text).map(|s| s.due);
        assert_eq!(every("@every 1h30m"), Ok(Due::Every(5400)));
        assert_eq!(every("@every 500ms"), Ok(Due::Every(1)));
        assert_eq!(Schedule::parse("TZ=Asia/Tokyo @daily").unwrap().zone.as_deref(), Some("Asia/Tokyo"));
        assert_eq!(Schedule::parse("CRON_TZ=UTC 1 2 3 4 5").unwrap().due, Due::At(at("1 2 3 4 5")));
    }

    #[test]
    fn what_is_wrong() {
        for (bad, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            ("*/-1 * * * *", "negative number (-1) not allowed: -1"),
            (
                "*/99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (" @daily", "expected exactly 5 fields, found 1: [@daily]"),
            ("@every 1", "failed to parse duration @every 1: time: missing unit in duration \"1\""),
        ] {
            assert_eq!(Schedule::parse(bad).unwrap_err(), why, "{bad}");
        }
    }
}

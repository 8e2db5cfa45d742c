//! Times as the API writes them: RFC 3339 in UTC, read with Go's rules and Go's complaints.

/// Seconds and nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
}

/// Go's zero time, the first of January of year 1, which is written as null.
pub const ZERO: Instant = Instant { seconds: -62_135_596_800, nanos: 0 };

struct Scan<'a> {
    all: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Scan<'_> {
    fn fail(&self, element: &str) -> String {
        format!("parsing time {:?} as {:?}: cannot parse {:?} as {:?}", self.all, self.layout, self.rest, element)
    }

    fn range(&self, what: &str) -> String {
        format!("parsing time {:?}: {what} out of range", self.all)
    }

    fn number(&mut self, digits: usize, element: &str) -> Result<i64, String> {
        let one = |n, b: &u8| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0'));
        let number = self.rest.as_bytes().get(..digits).and_then(|bytes| bytes.iter().try_fold(0, one));
        let number = number.ok_or_else(|| self.fail(element))?;
        self.rest = &self.rest[digits..];
        Ok(number)
    }

    fn literal(&mut self, text: &'static str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.fail(text))?;
        Ok(())
    }

    fn fraction(&mut self) -> u32 {
        let Some(digits) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let len = digits.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return 0;
        }
        self.rest = &digits[len..];
        digits
            .bytes()
            .take(len.min(9))
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |n, b| n * 10 + u32::from(b - b'0'))
    }

    fn offset(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let digit = |i: usize| bytes.get(i).filter(|b| b.is_ascii_digit()).map(|b| i64::from(b - b'0'));
        let two = |i: usize| Some(digit(i)? * 10 + digit(i + 1)?);
        let sign = match bytes.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.fail("Z07:00")),
        };
        let (Some(hours), Some(b':'), Some(minutes)) = (two(1), bytes.get(3), two(4)) else {
            return Err(self.fail("Z07:00"));
        };
        if hours > 24 {
            return Err(self.range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.range("time zone offset minute"));
        }
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 60 + minutes) * 60)
    }
}

/// Parses a time as Go does by the layout of `Time`, or (`micro`) of `MicroTime`, which demands six digits of fraction.
pub fn parse(text: &str, micro: bool) -> Result<Instant, String> {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let mut s = Scan { all: text, rest: text, layout };
    let year = s.number(4, "2006")?;
    s.literal("-")?;
    let month = s.number(2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(s.range("month"));
    }
    s.literal("-")?;
    let day = s.number(2, "02")?;
    s.literal("T")?;
    let hour = s.number(2, "15")?;
    if hour > 23 {
        return Err(s.range("hour"));
    }
    s.literal(":")?;
    let minute = s.number(2, "04")?;
    if minute > 59 {
        return Err(s.range("minute"));
    }
    s.literal(":")?;
    let second = s.number(2, "05")?;
    if second > 59 {
        return Err(s.range("second"));
    }
    let nanos = if micro {
        let fraction = s.rest.as_bytes().get(..7);
        if !fraction.is_some_and(|f| f[0] == b'.' && f[1..].iter().all(u8::is_ascii_digit)) {
            return Err(s.fail(".000000"));
        }
        let nanos = s.rest[1..7].parse::<u32>().unwrap_or(0) * 1000;
        s.rest = &s.rest[7..];
        nanos
    } else {
        s.fraction()
    };
    let offset = s.offset()?;
    if !s.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", s.rest));
    }
    if day < 1 || day > days_in(year, month) {
        return Err(s.range("day"));
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok(Instant { seconds, nanos })
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01, by counting years from March so that a leap day comes last.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The year, month and day, both from 1, of a day counted from 1970-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The time as text, with six digits of fraction if `micro`. Years outside 0..=9999, which cannot be written, give
/// nothing.
pub fn format(at: Instant, micro: bool) -> Option<String> {
    let (days, rest) = (at.seconds.div_euclid(86_400), at.seconds.rem_euclid(86_400));
    if !(-719_528..=2_932_896).contains(&days) {
        return None;
    }
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micro {
        out.push_str(&format!(".{:06}", at.nanos / 1000));
    }
    out.push('Z');
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        let check = |text: &str, micro: bool, expect: &str| {
            let got = parse(text, micro).map(|t| format(t, micro).unwrap());
            assert_eq!(got.unwrap_or_else(|e| e), expect);
        };
        check("2024-02-29T12:34:56Z", false, "2024-02-29T12:34:56Z");
        check("2024-01-01T00:30:00+02:00", false, "2023-12-31T22:30:00Z");
        check("2024-01-01T00:00:00.999Z", false, "2024-01-01T00:00:00Z");
        check("0001-01-01T00:00:00Z", false, "0001-01-01T00:00:00Z");
        check("1969-12-31T23:59:59Z", false, "1969-12-31T23:59:59Z");
        check("2024-01-01T00:00:00.123456Z", true, "2024-01-01T00:00:00.123456Z");
        check("2024-12-31T23:59:60Z", false, r#"parsing time "2024-12-31T23:59:60Z": second out of range"#);
        check("2024-00-31T23:59:00Z", false, r#"parsing time "2024-00-31T23:59:00Z": month out of range"#);
        check("2024-01-00T23:59:00Z", false, r#"parsing time "2024-01-00T23:59:00Z": day out of range"#);
        check("x", false, r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#);
        check("2024-13-01T00:00:00Z", false, r#"parsing time "2024-13-01T00:00:00Z": month out of range"#);
        check("2023-02-29T00:00:00Z", false, r#"parsing time "2023-02-29T00:00:00Z": day out of range"#);
        check(
            "2024-01-01 00:00:00Z",
            false,
            r#"parsing time "2024-01-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#,
        );
        check("2024-01-01T00:00:00Zx", false, r#"parsing time "2024-01-01T00:00:00Zx": extra text: "x""#);
        check(
            "2024-01-01T00:00:00Z",
            true,
            r#"parsing time "2024-01-01T00:00:00Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
        );
    }

    #[test]
    fn days_round_trip() {
        for days in (-719_528..2_932_896).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
        assert_eq!(parse("0001-01-01T00:00:00Z", false), Ok(ZERO));
    }
}

//! Times and durations. The interpreter has none of its own here: these are values like its own.

use std::any::Any;
use std::cmp::Ordering;

use cel::common::traits::{Adder, Comparer, Subtractor, Zeroer};
use cel::common::types::{CelInt, CelString, DURATION_TYPE, TIMESTAMP_TYPE, Type as Runtime};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pintle_api::duration::nanoseconds;

use super::{INT_TYPE, STRING_TYPE, fail};
use crate::time;

const NANOS: i64 = 1_000_000_000;
/// The first second of the year 1, and the last of 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CelTime {
    seconds: i64,
    nanos: u32,
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CelSpan(i64);

type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

impl CelTime {
    /// A time of so many seconds since 1970; `None` outside of the years 1 to 9999.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        (FIRST..=LAST).contains(&seconds).then_some(Self { seconds, nanos })
    }

    /// Reads RFC 3339.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let at = time::parse(text, false).ok()?;
        Self::new(at.seconds, at.nanos)
    }

    fn plus(self, nanos: i64) -> Result<Self, ExecutionError> {
        let all = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos) + i128::from(nanos);
        let seconds = i64::try_from(all.div_euclid(NANOS.into())).ok();
        let nanos = u32::try_from(all.rem_euclid(NANOS.into())).unwrap_or(0);
        seconds.and_then(|s| Self::new(s, nanos)).ok_or_else(|| fail("timestamp", "timestamp overflow"))
    }

    fn since(self, other: Self) -> Result<CelSpan, ExecutionError> {
        let seconds = i128::from(self.seconds - other.seconds) * i128::from(NANOS);
        let all = seconds + i128::from(self.nanos) - i128::from(other.nanos);
        i64::try_from(all).map(CelSpan).map_err(|_| fail("timestamp", "timestamp overflow"))
    }

    fn text(self) -> String {
        let at = time::Instant { seconds: self.seconds, nanos: 0 };
        let whole = time::format(at, false).unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned());
        if self.nanos == 0 {
            return whole;
        }
        let fraction = format!("{:09}", self.nanos);
        format!("{}.{}Z", whole.trim_end_matches('Z'), fraction.trim_end_matches('0'))
    }
}

/// A value of the interpreter that is one number or two: what all of its kind have in common.
macro_rules! value {
    ($name:ident, $type:ident, $($more:tt)*) => {
        impl Val for $name {
            fn get_type(&self) -> &Runtime {
                Self::cel_type()
            }

            fn cel_type() -> &'static Runtime {
                static TYPE: Runtime = $type;
                &TYPE
            }

            fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
            where
                Self: 'v,
            {
                Some(self)
            }

            fn as_comparer(&self) -> Option<&dyn Comparer> {
                Some(self)
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
            where
                Self: 'v,
            {
                Box::new(*self)
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }

            $($more)*
        }

        impl StaticVal for $name {}
    };
}

value!(CelTime, TIMESTAMP_TYPE,);
value!(
    CelSpan,
    DURATION_TYPE,
    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }
);

impl Adder for CelTime {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Answer<'b, 'v>
    where
        Self: 'v,
    {
        let span = rhs.downcast_ref::<CelSpan>().ok_or_else(|| fail("_+_", "no such overload"))?;
        Ok(CowVal::owned(self.plus(span.0)?))
    }
}

impl Subtractor for CelTime {
    fn sub<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Answer<'b, 'v>
    where
        Self: 'v,
    {
        if let Some(other) = rhs.downcast_ref::<Self>() {
            return Ok(CowVal::owned(self.since(*other)?));
        }
        let span = rhs.downcast_ref::<CelSpan>().ok_or_else(|| fail("_-_", "no such overload"))?;
        let back = span.0.checked_neg().ok_or_else(|| fail("_-_", "timestamp overflow"))?;
        Ok(CowVal::owned(self.plus(back)?))
    }
}

impl Comparer for CelTime {
    fn compare(&self, rhs: &dyn Val) -> Result<Ordering, ExecutionError> {
        rhs.downcast_ref::<Self>().map(|other| self.cmp(other)).ok_or_else(|| fail("compare", "no such overload"))
    }
}

impl Zeroer for CelSpan {
    fn is_zero_value(&self) -> bool {
        self.0 == 0
    }
}

impl Adder for CelSpan {
    fn add<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Answer<'b, 'v>
    where
        Self: 'v,
    {
        if let Some(time) = rhs.downcast_ref::<CelTime>() {
            return Ok(CowVal::owned(time.plus(self.0)?));
        }
        let other = rhs.downcast_ref::<Self>().ok_or_else(|| fail("_+_", "no such overload"))?;
        let sum = self.0.checked_add(other.0).ok_or_else(|| fail("_+_", "duration overflow"))?;
        Ok(CowVal::owned(Self(sum)))
    }
}

impl Subtractor for CelSpan {
    fn sub<'b, 'v>(&'b self, rhs: &(dyn Val + 'v)) -> Answer<'b, 'v>
    where
        Self: 'v,
    {
        let other = rhs.downcast_ref::<Self>().ok_or_else(|| fail("_-_", "no such overload"))?;
        let rest = self.0.checked_sub(other.0).ok_or_else(|| fail("_-_", "duration overflow"))?;
        Ok(CowVal::owned(Self(rest)))
    }
}

impl Comparer for CelSpan {
    fn compare(&self, rhs: &dyn Val) -> Result<Ordering, ExecutionError> {
        rhs.downcast_ref::<Self>().map(|other| self.cmp(other)).ok_or_else(|| fail("compare", "no such overload"))
    }
}

fn arg<'a, T: StaticVal + 'static>(args: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a T, ExecutionError> {
    args.get(at).and_then(|a| a.downcast_ref::<T>()).ok_or_else(|| fail("time", "no such overload"))
}

fn text<'a>(args: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    let text = args.get(at).and_then(|a| a.downcast_ref::<CelString<'_>>());
    text.map(CelString::inner).ok_or_else(|| fail("string", "no such overload"))
}

fn int(args: &[CowVal<'_, '_>]) -> Result<i64, ExecutionError> {
    let int = args.first().and_then(|a| a.downcast_ref::<CelInt>());
    int.map(|i| *i.inner()).ok_or_else(|| fail("int", "no such overload"))
}

fn number<'b, 'v>(n: i64) -> CowVal<'b, 'v> {
    CowVal::owned(CelInt::from(n))
}

/// A part of a time or of a span, by the name of its function.
struct Part {
    name: &'static str,
    of_time: fn(&Civil) -> i64,
    of_span: Option<i64>,
}

/// A time as calendars and clocks have it.
struct Civil {
    year: i64,
    /// From 0.
    month: i64,
    /// From 0.
    day: i64,
    day_of_year: i64,
    /// From Sunday, 0.
    weekday: i64,
    second_of_day: i64,
    nanos: i64,
}

impl Civil {
    fn of(at: CelTime, offset: i64) -> Self {
        let local = at.seconds + offset;
        let days = local.div_euclid(86_400);
        let (year, month, day) = time::civil_from_days(days);
        Self {
            year,
            month: month - 1,
            day: day - 1,
            day_of_year: days - time::days_from_civil(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            second_of_day: local.rem_euclid(86_400),
            nanos: at.nanos.into(),
        }
    }
}

/// The seconds that a zone is ahead at a time: `UTC`, `-08:00` or `America/New_York`.
fn offset(zone: &str, at: CelTime) -> Result<i64, ExecutionError> {
    let unknown = || fail("timestamp", format!("unknown time zone {zone}"));
    let Some((hours, minutes)) = zone.split_once(':') else {
        if matches!(zone, "" | "UTC") {
            return Ok(0);
        }
        let zone = TimeZone::get(zone).map_err(|_| unknown())?;
        let at = Timestamp::from_second(at.seconds).map_err(|e| fail("timestamp", e))?;
        return Ok(zone.to_offset(at).seconds().into());
    };
    let (h, m): (i64, i64) = (hours.parse().map_err(|_| unknown())?, minutes.parse().map_err(|_| unknown())?);
    if h.abs() > 24 || m.abs() > 60 {
        return Err(unknown());
    }
    Ok(60 * (h * 60 + if hours.starts_with('-') { -m } else { m }))
}

/// Declares one part: of a time, of a time in a zone, and of a span where that has one.
macro_rules! parts {
    ($env:expr; $($name:literal $of_time:expr, $of_span:expr;)*) => {$({
        const PART: Part = Part { name: $name, of_time: $of_time, of_span: $of_span };
        $env.add_member_overload(PART.name, concat!("timestamp.", $name), TIMESTAMP_TYPE, vec![], |a| {
            Ok(number((PART.of_time)(&Civil::of(*arg(&a, 0)?, 0))))
        })?;
        $env.add_member_overload(PART.name, concat!("timestamp.", $name, "(tz)"), TIMESTAMP_TYPE, vec![STRING_TYPE], |a| {
            let at = *arg(&a, 0)?;
            Ok(number((PART.of_time)(&Civil::of(at, offset(text(&a, 1)?, at)?))))
        })?;
        if PART.of_span.is_some() {
            $env.add_member_overload(PART.name, concat!("duration.", $name), DURATION_TYPE, vec![], |a| {
                Ok(number(arg::<CelSpan>(&a, 0)?.0 / PART.of_span.unwrap_or(1)))
            })?;
        }
    })*};
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("duration", "duration(string)", vec![STRING_TYPE], |a| {
        let n = nanoseconds(text(&a, 0)?).map_err(|_| fail("duration", "invalid duration"))?;
        Ok(CowVal::owned(CelSpan(n)))
    })?;
    env.add_overload("duration", "duration(int)", vec![INT_TYPE], |a| Ok(CowVal::owned(CelSpan(int(&a)?))))?;
    env.add_overload("duration", "duration(duration)", vec![DURATION_TYPE], same)?;
    env.add_overload("timestamp", "timestamp(string)", vec![STRING_TYPE], |a| {
        let at = CelTime::parse(text(&a, 0)?).ok_or_else(|| fail("timestamp", "invalid timestamp"))?;
        Ok(CowVal::owned(at))
    })?;
    env.add_overload("timestamp", "timestamp(int)", vec![INT_TYPE], |a| {
        let at = CelTime::new(int(&a)?, 0).ok_or_else(|| fail("timestamp", "timestamp overflow"))?;
        Ok(CowVal::owned(at))
    })?;
    env.add_overload("timestamp", "timestamp(timestamp)", vec![TIMESTAMP_TYPE], same)?;
    env.add_overload("int", "int(timestamp)", vec![TIMESTAMP_TYPE], |a| Ok(number(arg::<CelTime>(&a, 0)?.seconds)))?;
    env.add_overload("int", "int(duration)", vec![DURATION_TYPE], |a| Ok(number(arg::<CelSpan>(&a, 0)?.0)))?;
    env.add_overload("string", "string(timestamp)", vec![TIMESTAMP_TYPE], |a| {
        Ok(CowVal::owned(CelString::from(arg::<CelTime>(&a, 0)?.text())))
    })?;
    env.add_overload("string", "string(duration)", vec![DURATION_TYPE], |a| {
        let span = arg::<CelSpan>(&a, 0)?.0;
        Ok(CowVal::owned(CelString::from(format!("{}s", span as f64 / NANOS as f64))))
    })?;
    parts!(env;
        "getFullYear" |c| c.year, None;
        "getMonth" |c| c.month, None;
        "getDayOfYear" |c| c.day_of_year, None;
        "getDayOfMonth" |c| c.day, None;
        "getDate" |c| c.day + 1, None;
        "getDayOfWeek" |c| c.weekday, None;
        "getHours" |c| c.second_of_day / 3_600, Some(3_600 * NANOS);
        "getMinutes" |c| c.second_of_day / 60 % 60, Some(60 * NANOS);
        "getSeconds" |c| c.second_of_day % 60, Some(NANOS);
        "getMilliseconds" |c| c.nanos / 1_000_000, Some(1_000_000);
    );
    Ok(())
}

fn same<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Answer<'b, 'v> {
    args.pop().ok_or_else(|| fail("time", "no such overload"))
}

//! Resource quantities (`100m`, `1.5Gi`, `12e6`): exact decimal numbers that print in Kubernetes' canonical form.
//!
//! A quantity is a mantissa times a power of ten, never a float, together with the kind of suffix it was written with
//! and will be printed with again. Numbers finer than a billionth are rounded away from zero on parsing; binary ones
//! are capped at 2^63-1.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The kind of suffix a quantity is printed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12M`: n u m "" k M G T P E
    #[default]
    DecimalSi,
    /// `12Mi`: Ki Mi Gi Ti Pi Ei
    BinarySi,
    /// `12e6`
    DecimalExponent,
}

/// Why a text is no quantity; the texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// The text has not the form of a quantity.
    Format,
    /// The number is malformed, or beyond what can be represented.
    Numeric,
    /// The suffix is unknown.
    Suffix,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuantityError::Format => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            QuantityError::Numeric => "unable to parse numeric part of quantity",
            QuantityError::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for QuantityError {}

/// An exact number with a unit. Equality and order are by value: `1024Mi == 1Gi`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
}

/// The finest scale kept: billionths.
const NANO: i32 = -9;
/// The most digits a mantissa may have; any such number fits an `i128`.
const MAX_DIGITS: usize = 38;

/// The parts of a quantity's text. `num` has no leading zeros, and is "0" where nothing is left.
struct Parts<'a> {
    negative: bool,
    num: &'a str,
    denom: &'a str,
    suffix: &'a str,
}

fn digits_end(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    (from..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len())
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let bytes = text.as_bytes();
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    while bytes.get(at) == Some(&b'0') {
        at += 1;
    }
    let end = digits_end(text, at);
    let num = if end == at { "0" } else { &text[at..end] };
    at = end;
    let mut denom = "";
    if bytes.get(at) == Some(&b'.') {
        let end = digits_end(text, at + 1);
        denom = &text[at + 1..end];
        at = end;
    }
    let start = at;
    while bytes.get(at).is_some_and(|b| b"eEinumkKMGTP".contains(b)) {
        at += 1;
    }
    if matches!(bytes.get(at), Some(b'-' | b'+')) {
        at += 1;
    }
    at = digits_end(text, at);
    if at != bytes.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, num, denom, suffix: &text[start..] })
}

/// Base, exponent and format of a suffix.
fn suffix(s: &str) -> Option<(u32, i32, Format)> {
    use Format::{BinarySi, DecimalExponent, DecimalSi};
    if let Some(i) = DECIMAL.iter().position(|d| *d == s) {
        return Some((10, 3 * i as i32 - 9, DecimalSi));
    }
    if let Some(i) = BINARY.iter().skip(1).position(|b| *b == s) {
        return Some((2, 10 * (i as i32 + 1), BinarySi));
    }
    let exponent: i64 = s.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((10, i32::try_from(exponent).ok()?, DecimalExponent))
}

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity { mantissa: 0, scale: 0, format: Format::DecimalSi };

    /// A whole number.
    pub const fn new(value: i64, format: Format) -> Self {
        Quantity { mantissa: value as i128, scale: 0, format }
    }

    /// `value` thousandths.
    pub const fn milli(value: i64, format: Format) -> Self {
        Quantity { mantissa: value as i128, scale: -3, format }
    }

    /// `value` times ten to the `scale`.
    pub const fn scaled(value: i64, scale: i32, format: Format) -> Self {
        Quantity { mantissa: value as i128, scale, format }
    }

    /// Parses a quantity as upstream does.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = split(text)?;
        let (base, exponent, mut format) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
        let (mut mantissa, mut scale) = number(parts.num, parts.denom)?;
        if base == 10 {
            scale = scale.saturating_add(exponent);
        } else {
            (mantissa, scale) = times_power_of_two(mantissa, scale, exponent);
        }
        let mut q = Quantity { mantissa, scale, format }.at_least(NANO).0;
        if format == Format::BinarySi {
            let max = Quantity::new(i64::MAX, format);
            if q > max {
                q = max;
            }
            if q > Quantity::ZERO && q < Quantity::new(1, format) {
                format = Format::DecimalSi;
            }
        }
        if parts.negative {
            q.mantissa = -q.mantissa;
        }
        q.format = format;
        Ok(q)
    }

    /// How the API server prints a quantity that was given as `text`: the text itself where upstream's parser takes it
    /// for canonical already, otherwise the canonical form.
    pub fn normalize(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        let q = Self::parse(text)?;
        if text == "0" || kept_as_written(text) {
            return Ok(Cow::Borrowed(text));
        }
        Ok(Cow::Owned(q.to_string()))
    }

    /// The kind of suffix it prints with.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The same value with another kind of suffix.
    pub fn with_format(self, format: Format) -> Self {
        Quantity { format, ..self }
    }

    /// True for zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// The value rounded away from zero to a whole number, saturating.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The value in thousandths, rounded away from zero, saturating.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// The value divided by ten to the `scale`, rounded away from zero, saturating.
    pub fn scaled_value(&self, scale: i32) -> i64 {
        let (q, _) = self.at_least(scale);
        let up = i64::from(q.scale) - i64::from(scale);
        let wide = match u32::try_from(up).ok().and_then(|up| 10i128.checked_pow(up)) {
            Some(factor) => q.mantissa.saturating_mul(factor),
            None => q.mantissa.signum().saturating_mul(i128::MAX),
        };
        wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// The value as a whole number if it is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        let (q, exact) = self.at_least(0);
        let factor = 10i128.checked_pow(u32::try_from(q.scale).ok()?)?;
        if exact { q.mantissa.checked_mul(factor)?.try_into().ok() } else { None }
    }

    /// An approximation, for metrics and scores only.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }

    /// The value rounded away from zero to a multiple of ten to the `scale`, and whether nothing was lost.
    pub fn round_up(&self, scale: i32) -> (Self, bool) {
        self.at_least(scale)
    }

    fn at_least(self, scale: i32) -> (Self, bool) {
        if self.scale >= scale {
            return (self, true);
        }
        let by = scale.abs_diff(self.scale);
        let (mantissa, exact) = match 10i128.checked_pow(by) {
            Some(divisor) => {
                let rest = self.mantissa % divisor;
                (self.mantissa / divisor + rest.signum(), rest == 0)
            }
            None => (self.mantissa.signum(), self.mantissa == 0),
        };
        (Quantity { mantissa, scale, ..self }, exact)
    }

    /// Mantissa without trailing zeros, and its scale.
    fn reduced(self) -> (i128, i32) {
        let (mut m, mut s) = (self.mantissa, self.scale);
        if m == 0 {
            return (0, 0);
        }
        while m % 10 == 0 && s < i32::MAX {
            m /= 10;
            s += 1;
        }
        (m, s)
    }

    fn negated(self) -> Self {
        Quantity { mantissa: -self.mantissa, ..self }
    }

    /// The product with a whole number, saturating.
    pub fn times(self, by: i64) -> Self {
        Quantity { mantissa: self.mantissa.saturating_mul(i128::from(by)), ..self }
    }

    /// The decimal form: digits and an exponent that is a multiple of three.
    fn canonical_decimal(self) -> (String, i32) {
        let (m, s) = self.reduced();
        let extra = s.rem_euclid(3);
        let mut digits = m.to_string();
        digits.extend(std::iter::repeat_n('0', extra as usize));
        (digits, s.saturating_sub(extra))
    }
}

/// Digits before and after the point as mantissa and scale. What is finer than any suffix could make visible is
/// rounded up when there are too many digits.
fn number(num: &str, denom: &str) -> Result<(i128, i32), QuantityError> {
    let all = || num.bytes().chain(denom.bytes());
    let significant = all().skip_while(|b| *b == b'0').count();
    let trailing = all().rev().take_while(|b| *b == b'0').count();
    if significant <= trailing {
        return Ok((0, 0));
    }
    let total = num.len() + denom.len();
    // Trailing zeros are dropped first; then, if needed, digits after the point, rounding up.
    let mut keep = total - trailing;
    let mut rounded = false;
    if significant - trailing > MAX_DIGITS {
        keep = total - significant + MAX_DIGITS;
        if keep < num.len() {
            return Err(QuantityError::Numeric);
        }
        rounded = true;
    }
    let mantissa = all().take(keep).fold(0i128, |m, b| m * 10 + i128::from(b - b'0'));
    let scale = i32::try_from(num.len() as i64 - keep as i64).map_err(|_| QuantityError::Numeric)?;
    Ok((mantissa + i128::from(rounded), scale))
}

/// `mantissa * 10^scale * 2^exponent`, dropping digits (rounding up) only where an `i128` could not hold them all.
fn times_power_of_two(mut mantissa: i128, mut scale: i32, exponent: i32) -> (i128, i32) {
    let factor = 1i128 << exponent;
    let mut lost = false;
    loop {
        if let Some(product) = mantissa.checked_mul(factor) {
            return (product.saturating_add(i128::from(lost)), scale);
        }
        lost |= mantissa % 10 != 0;
        mantissa /= 10;
        scale += 1;
    }
}

/// Whether upstream's fast parser keeps the text for printing. It does so for numbers small enough for its 64-bit form
/// that look canonical, which lets a few odd spellings through (`010`, `+1`, `1.500`).
fn kept_as_written(text: &str) -> bool {
    let Ok(Parts { num, denom, suffix: s, .. }) = split(text) else { return false };
    let Some((_, exponent, format)) = suffix(s) else { return false };
    let digits = num.len() + denom.len();
    let room = match format {
        Format::BinarySi if denom.is_empty() => 15 - num.len() as i64 - i64::from(exponent) * 3 / 10 - 1,
        Format::BinarySi => -1,
        _ => 18 - digits as i64,
    };
    let scale = if format == Format::BinarySi { 0 } else { exponent }.saturating_sub(denom.len() as i32);
    if room < 0 || scale < NANO {
        return false;
    }
    // There is room: the digits fit.
    let value = num.bytes().chain(denom.bytes()).fold(0i64, |v, b| v * 10 + i64::from(b - b'0'));
    match format {
        Format::BinarySi => value & 7 != 0,
        _ => scale % 3 == 0 && !(digits >= 3 && value % 1000 == 0) && !num.starts_with('0'),
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi
            && (*self <= Quantity::new(-1024, self.format) || *self >= Quantity::new(1024, self.format));
        if binary && let Some(whole) = whole(self) {
            let (mut value, mut unit) = (whole, 0);
            while value % 1024 == 0 && unit < BINARY.len() - 1 {
                value /= 1024;
                unit += 1;
            }
            return write!(f, "{value}{}", BINARY[unit]);
        }
        let (digits, exponent) = self.canonical_decimal();
        if self.format != Format::DecimalExponent {
            // Upstream has no suffix beyond E and prints the bare digits then; a number is not changed here.
            let unit = exponent / 3 + 3;
            if let Some(unit) = usize::try_from(unit).ok().and_then(|u| DECIMAL.get(u)) {
                return write!(f, "{digits}{unit}");
            }
        }
        if exponent == 0 { f.write_str(&digits) } else { write!(f, "{digits}e{exponent}") }
    }
}

/// The value if it is a whole number that an `i128` holds.
fn whole(q: &Quantity) -> Option<i128> {
    let (q, exact) = q.at_least(0);
    let factor = 10i128.checked_pow(u32::try_from(q.scale).ok()?)?;
    if exact { q.mantissa.checked_mul(factor) } else { None }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        Quantity::parse(s)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.scale == other.scale || self.sign() != other.sign() || self.is_zero() {
            return match self.sign().cmp(&other.sign()) {
                Ordering::Equal => self.mantissa.cmp(&other.mantissa),
                unequal => unequal,
            };
        }
        if self.sign() < 0 {
            return other.negated().cmp(&self.negated());
        }
        // Both positive: the position of the first digit decides, and only within it are the numbers aligned.
        let top = |q: &Quantity| i64::from(q.mantissa.ilog10()) + i64::from(q.scale);
        top(self).cmp(&top(other)).then_with(|| {
            let by = self.scale.abs_diff(other.scale);
            let scale_up = |m: i128| 10i128.checked_pow(by).and_then(|f| m.checked_mul(f));
            if self.scale > other.scale {
                scale_up(self.mantissa).map_or(Ordering::Greater, |m| m.cmp(&other.mantissa))
            } else {
                scale_up(other.mantissa).map_or(Ordering::Less, |m| self.mantissa.cmp(&m))
            }
        })
    }
}

/// The exact sum; zero takes the other's format. Beyond 38 digits the finest are rounded away from zero.
impl std::ops::Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        if self.is_zero() || other.is_zero() {
            let some = if self.is_zero() { other } else { self };
            return Quantity { format, ..some };
        }
        let align = |q: Quantity, scale: i32| {
            let (q, _) = q.at_least(scale);
            10i128.checked_pow(q.scale.abs_diff(scale)).and_then(|f| q.mantissa.checked_mul(f))
        };
        let lowest = self.scale.min(other.scale);
        let highest = self.scale.max(other.scale);
        for scale in lowest..=highest {
            if let (Some(a), Some(b)) = (align(self, scale), align(other, scale))
                && let Some(mantissa) = a.checked_add(b)
            {
                return Quantity { mantissa, scale, format };
            }
            // Numbers this far apart cannot meet before the finer one has vanished.
            if scale.abs_diff(lowest) > 2 * MAX_DIGITS as u32 {
                break;
            }
        }
        let larger = if self.scale == highest { self } else { other };
        Quantity { format, ..larger }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Quantity;
    #[expect(clippy::suspicious_arithmetic_impl, reason = "adding the negated number is how it subtracts")]
    fn sub(self, other: Quantity) -> Quantity {
        self + other.negated()
    }
}

impl std::ops::Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        self.negated()
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(iter: I) -> Quantity {
        iter.fold(Quantity::ZERO, |a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn parses_and_prints() {
        use Format::{BinarySi, DecimalExponent, DecimalSi};
        let check = |text: &str, (m, s): (i64, i32), format: Format| {
            for (sign, m) in [("", m), ("-", -m), ("+", m)] {
                let got = q(&format!("{sign}{text}"));
                assert_eq!(got, Quantity::scaled(m, s, format), "{sign}{text}: {got:?}");
                assert_eq!(got.format(), format, "{text}");
            }
        };
        check("0", (0, 0), DecimalSi);
        check("0n", (0, 0), DecimalSi);
        check("0Ki", (0, 0), BinarySi);
        check("3Ei", (3 << 60, 0), BinarySi);
        check("100Ti", (100 << 40, 0), BinarySi);
        check("5n", (5, -9), DecimalSi);
        check("40T", (4, 13), DecimalSi);
        check("1E", (1, 18), DecimalSi);
        check("1E-3", (1, -3), DecimalExponent);
        check("1.3E+6", (13, 5), DecimalExponent);
        check("1.7E18", (17, 17), DecimalExponent);
        check("0.00050k", (5, -1), DecimalSi);
        check("6.987654321G", (6_987_654_321, 0), DecimalSi);
        check("3.001n", (4, -9), DecimalSi);
        check("1.1E-9", (2, -9), DecimalExponent);
        check("0.0000000001", (1, -9), DecimalSi);
        check("0.00000012354", (124, -9), DecimalSi);
        check("9Ei", (i64::MAX, 0), BinarySi);
        check("9223372036854775807Ki", (i64::MAX, 0), BinarySi);
        check("12E", (12, 18), DecimalSi);
        check("100.035Ki", (10_243_584, -2), BinarySi);
        check("0.025Ti", (274_877_906_944, -1), BinarySi);
        check("0.000000000001Ki", (2, -9), DecimalSi);
        check(".001", (1, -3), DecimalSi);
        check("1.", (1, 0), DecimalSi);
        check("1.G", (1, 9), DecimalSi);
        check(".", (0, 0), DecimalSi);
        for bad in
            ["", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", " 1", "1 ", "1 Gi", "e"]
        {
            assert!(Quantity::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Quantity::parse("1i"), Err(QuantityError::Suffix));
        assert_eq!(Quantity::parse("x"), Err(QuantityError::Format));
    }

    #[test]
    fn canonical_forms() {
        let check = |text: &str, expect: &str| {
            assert_eq!(Quantity::normalize(text).unwrap(), expect, "{text}");
            assert_eq!(Quantity::normalize(expect).unwrap(), expect, "again {expect}");
        };
        for (text, expect) in [
            ("1024Mi", "1Gi"),
            ("307200Ki", "300Mi"),
            ("1001Gi", "1001Gi"),
            ("1025024Mi", "1001Gi"),
            ("5000m", "5"),
            ("0.5", "500m"),
            ("1000M", "1G"),
            ("0.001T", "1G"),
            ("1000u", "1m"),
            ("1.08", "1080m"),
            ("1080000000n", "1080m"),
            ("1.5Gi", "1536Mi"),
            ("1.5", "1500m"),
            ("1025Ki", "1025Ki"),
            (".001e12", "1e9"),
            ("0.001e0", "1e-3"),
            ("1000e-12", "1e-9"),
            ("00", "0"),
            ("0Gi", "0"),
            (".001Ki", "1024m"),
            (".000000000001Ki", "2n"),
            ("0.1", "100m"),
            ("1e1", "10"),
            ("123456789", "123456789"),
            ("1000", "1k"),
            ("10000000", "10M"),
            ("-1024Ki", "-1Mi"),
            // What upstream's parser takes as canonical although it is not.
            ("010", "010"),
            ("+1", "+1"),
            ("1.500", "1.500"),
            ("1E3", "1E3"),
        ] {
            check(text, expect);
        }
    }

    #[test]
    fn compares() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, expect) in [
            ("0", "0", Equal),
            ("100m", "50m", Greater),
            ("10000T", "100Gi", Greater),
            ("1Gi", "1024Mi", Equal),
            ("1", "1000m", Equal),
            ("-1", "1n", Less),
            ("0", "1n", Less),
            ("1e300", "1e299", Greater),
            ("-1e300", "-1e299", Less),
            ("999", "1k", Less),
        ] {
            assert_eq!(q(a).cmp(&q(b)), expect, "{a} {b}");
            assert_eq!(q(b).cmp(&q(a)), expect.reverse(), "{b} {a}");
        }
    }

    #[test]
    fn arithmetic() {
        assert_eq!((q("100m") + q("0")).to_string(), "100m");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1Gi") + q("512Mi")).to_string(), "1536Mi");
        assert_eq!((q("1") - q("1n")).to_string(), "999999999n");
        assert_eq!((q("0") - q("1Gi")).to_string(), "-1Gi");
        assert_eq!((q("1e300") + q("1")).to_string(), "1e300");
        assert_eq!([q("250m"), q("750m")].into_iter().sum::<Quantity>().to_string(), "1");
        assert_eq!(q("3m").times(5).to_string(), "15m");
    }

    #[test]
    fn as_integers() {
        for (text, value, milli) in
            [("1500m", 2, 1500), ("1n", 1, 1), ("-1500m", -2, -1500), ("1Gi", 1 << 30, 1000 << 30), ("0", 0, 0)]
        {
            assert_eq!((q(text).value(), q(text).milli_value()), (value, milli), "{text}");
        }
        assert_eq!(q("12E").value(), i64::MAX);
        assert_eq!(q("1500m").as_i64(), None);
        assert_eq!(q("2000m").as_i64(), Some(2));
        assert_eq!(q("9.01").round_up(1), (q("10"), false));
        assert_eq!(q("-9.01").round_up(-1), (q("-9.1"), false));
    }

    #[test]
    fn no_text_panics() {
        let pieces = [
            "",
            "-",
            "+",
            "0",
            "00",
            "9",
            "1234567890123456789012345678901234567890",
            ".",
            "e",
            "E",
            "Ei",
            "Ki",
            "n",
            "m",
            "2147483647",
            "-2147483648",
            "99999999999999999999",
        ];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        let text = format!("{a}{b}{c}{d}");
                        if let Ok(v) = Quantity::parse(&text) {
                            let _ = (
                                v.to_string(),
                                v.value(),
                                v.milli_value(),
                                v.as_i64(),
                                v + q("1"),
                                q("3n") - v,
                                v.cmp(&q("7")),
                            );
                            let _ = Quantity::normalize(&text);
                        }
                    }
                }
            }
        }
    }
}

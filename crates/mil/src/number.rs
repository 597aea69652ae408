//! Numbers as the text spells them: decimal, or C99 hexadecimal with an exponent.

/// The finite number that a text spells, or where that takes more than 53 bits, one so near that it rounds to every
/// narrower type as the text does.
pub(crate) fn float(text: &str) -> Option<f64> {
    let value = if is_hex(text) { hex(text)? } else { decimal(text)?.parse().ok()? };
    Some(value).filter(|v: &f64| v.is_finite())
}

/// The finite fp32 number nearest to what a text spells, rounded once.
pub(crate) fn float32(text: &str) -> Option<f32> {
    // The cast rounds; `hex` keeps at most 53 bits, the last of them sticky, so it rounds right.
    let value = if is_hex(text) { hex(text)? as f32 } else { decimal(text)?.parse().ok()? };
    Some(value).filter(|v: &f32| v.is_finite())
}

fn is_hex(text: &str) -> bool {
    text.trim_start_matches('-').starts_with("0x")
}

/// The text itself, if only digits, a dot, signs and an exponent are in it (so no `1inf`, no `1_0`).
fn decimal(text: &str) -> Option<&str> {
    text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)).then_some(text)
}

/// `[-]0xH.HpD`. The exponent is required: without one, digits are a bit pattern.
fn hex(text: &str) -> Option<f64> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let (digits, exponent) = body.strip_prefix("0x")?.split_once(['p', 'P'])?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut exponent = exponent_value(exponent)?;
    let mut mantissa = 0u64;
    for (c, in_fraction) in whole.chars().map(|c| (c, false)).chain(fraction.chars().map(|c| (c, true))) {
        let digit = u64::from(c.to_digit(16)?);
        if mantissa < 1 << 49 {
            mantissa = mantissa << 4 | digit;
            exponent -= if in_fraction { 4 } else { 0 };
        } else {
            // Beyond 53 bits only whether anything follows matters.
            mantissa |= u64::from(digit != 0);
            exponent += if in_fraction { 0 } else { 4 };
        }
    }
    let magnitude = scaled(mantissa, exponent)?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Decimal digits with a sign, kept so small that adding the digits of a text cannot overflow.
fn exponent_value(text: &str) -> Option<i64> {
    const FAR: i64 = 1 << 60;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse::<i64>().unwrap_or(FAR).min(FAR);
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// `mantissa · 2^exponent` for a mantissa of at most 53 bits, exact where f64 is normal.
fn scaled(mantissa: u64, exponent: i64) -> Option<f64> {
    let high = f64::from(u32::try_from(mantissa >> 32).ok()?);
    let low = f64::from(u32::try_from(mantissa & 0xffff_ffff).ok()?);
    let exact = high * 4_294_967_296.0 + low;
    if exact == 0.0 {
        return Some(0.0);
    }
    let exponent = i32::try_from(exponent.clamp(-1022, 1024)).ok()?;
    Some(exact * 2f64.powi(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_beyond_the_last_place_decide_how_it_rounds() {
        // 1 + 2^-24 lies halfway between two numbers of single precision, and a digit far behind breaks the tie.
        assert_eq!(float32("0x1.000001p0"), Some(1.0));
        assert_eq!(float32("0x1.00000100000000000001p0"), Some(1.0 + f32::EPSILON));
        assert_eq!(float32("-0x10000010000000000000.1p-76"), Some(-1.0 - f32::EPSILON));
        assert_eq!(float32("0x1.00000100000000000000p0"), Some(1.0));
        assert_eq!(float("0x1.8p-1"), Some(0.75));
        // Half the smallest number and a digit far behind, where the digits before it are a power of two.
        assert_eq!(float32("0x2.0000000000000p-151"), Some(0.0));
        assert_eq!(float32("0x2.0000000000001p-151"), Some(f32::from_bits(1)));
    }

    #[test]
    fn an_exponent_has_digits_and_nothing_else() {
        for text in ["0x1", "0x1p", "0x1p-", "0x1p+", "0x1p--1", "0x1p-1x", "0x1p-f"] {
            assert_eq!(float(text), None, "{text}");
        }
        assert_eq!(float("0x1p-99999999999999999999"), float("0x1p-1022"));
    }
}

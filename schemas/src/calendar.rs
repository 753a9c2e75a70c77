//! Dates and times as tables store them, from RFC 3339 text to numbers.

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Days since 1970-01-01 of an RFC 3339 `full-date` such as `2013-07-01` (years 0000 to 9999,
/// Gregorian throughout); `None` for any other text.
pub fn days(text: &str) -> Option<i32> {
    let (year, month, day) = numbers(text)?;
    let valid = (1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month);
    valid.then(|| days_from_civil(year, month, day))
}

/// Why a text that is written like a date, `YYYY-MM-DD`, is none; `None` for any other text.
pub(crate) fn no_such_day(text: &str) -> Option<String> {
    let (year, month, day) = numbers(text)?;
    if !(1..=12).contains(&month) {
        return Some(format!("its month is {}, and a year has 12", &text[5..7]));
    }
    let length = days_of_month(year, month);
    let exists = (1..=length).contains(&day);
    (!exists).then(|| format!("{} has the days 01 to {length}", &text[..7]))
}

/// Year, month and day of a text that is written like a date, whether or not there is such a day.
fn numbers(text: &str) -> Option<(i32, i32, i32)> {
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    Some((
        number(&bytes[..4])?,
        number(&bytes[5..7])?,
        number(&bytes[8..])?,
    ))
}

/// Microseconds since 1970-01-01T00:00:00Z of an RFC 3339 `date-time`, with any offset.
///
/// `None` for any other text, and for the two things that RFC 3339 can write and a timestamp of
/// whole microseconds cannot hold: a leap second, and a fraction finer than a microsecond.
pub fn micros(text: &str) -> Option<i64> {
    let date = days(text.get(..10)?)?;
    let rest = text.as_bytes().get(10..)?;
    let [b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2, tail @ ..] = rest else {
        return None;
    };
    let (hour, minute, second) = (
        number(&[*h1, *h2])?,
        number(&[*m1, *m2])?,
        number(&[*s1, *s2])?,
    );
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = fraction(tail)?;
    let seconds = i64::from(date) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    Some((seconds - offset_seconds(zone)?) * MICROS_PER_SECOND + fraction)
}

/// The microseconds of an optional `.digits`, and the bytes after it.
fn fraction(tail: &[u8]) -> Option<(i64, &[u8])> {
    let Some(after_point) = tail.strip_prefix(b".") else {
        return Some((0, tail));
    };
    let length = after_point
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let (digits, zone) = after_point.split_at(length);
    let kept = &digits[..length.min(6)];
    if digits.is_empty() || digits[kept.len()..].iter().any(|b| *b != b'0') {
        return None;
    }
    let scale = 10_i64.pow(6 - u32::try_from(kept.len()).ok()?);
    Some((i64::from(number(kept)?) * scale, zone))
}

/// The seconds that local time is ahead of UTC.
fn offset_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let seconds = i64::from(hours * 3_600 + minutes * 60);
            let valid = hours <= 23 && minutes <= 59;
            valid.then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |sum, b| {
        b.is_ascii_digit().then(|| sum * 10 + i32::from(b - b'0'))
    })
}

fn days_of_month(year: i32, month: i32) -> i32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts in years that begin in March, so that the leap day is a year's last.
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_follows_the_one_before() {
        let mut expected = days("0000-01-01").unwrap();
        for year in 0..=9999 {
            for month in 1..=12 {
                for day in 1..=days_of_month(year, month) {
                    assert_eq!(days_from_civil(year, month, day), expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2013-07-01"), Some(15_887));
    }

    #[test]
    fn a_day_that_does_not_exist_is_told_by_what_is_wrong_with_it() {
        let why = |text| no_such_day(text).unwrap_or_default();
        assert!(why("1998-13-01").contains("month is 13"));
        assert!(why("1998-00-01").contains("month is 00"));
        assert!(why("2023-02-29").contains("2023-02 has the days 01 to 28"));
        assert!(why("2023-04-00").contains("01 to 30"));
        for other in ["2024-02-29", "1998-1-1", "01/02/1998", ""] {
            assert_eq!(no_such_day(other), None, "{other}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("2013-01-01T06:00:00Z"), Some(1_357_020_000_000_000));
        assert_eq!(
            micros("2013-01-01t01:00:00-05:00"),
            micros("2013-01-01T06:00:00Z")
        );
        assert_eq!(micros("1969-12-31T23:59:59.5z"), Some(-500_000));
        assert_eq!(micros("1970-01-01T00:00:00.1234560Z"), Some(123_456));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "2013-02-29",
            "2013-13-01",
            "2013-1-1",
            "2013-01-00",
            "２013-01-1",
            "2013-01-01Z",
        ] {
            assert_eq!(days(bad), None, "{bad}");
        }
        for bad in [
            "2013-01-01",
            "2013-01-01 06:00:00Z",
            "2013-01-01T06:00:00",
            "2013-01-01T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "1970-01-01T00:00:00.1234567Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00+0100",
            "2013-01-0éT06:00:00Z",
        ] {
            assert_eq!(micros(bad), None, "{bad}");
        }
    }
}

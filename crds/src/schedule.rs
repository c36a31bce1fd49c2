//! Schedules as cron writes them, as Kubernetes reads them: five fields or a descriptor such as `@hourly`.
//!
//! There is one reader, for the check at the door and for who follows the schedule later: what is accepted is what is done.
//! No crate is used for it, because each reads some schedules as something else than Kubernetes does (days of the week that
//! begin with 1, days that must match both fields, `L` and `#`), and accepts others than it.

use std::time::Duration;

use crate::duration;

/// The fields of a schedule: the least and the greatest number, and the names of numbers.
const BOUNDS: [Bounds; 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

type Bounds = (u32, u32, &'static [&'static str]);

/// When something is to be done, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Whenever so much time has passed. Whole seconds, and one of them at least.
    Every(Duration),
    /// At the minutes that fit.
    Fields(Fields),
}

/// The minutes that fit. Of each field, the numbers that are wanted, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The days of the month, or those of the week, are left open by a star. If neither is, one that fits is enough.
    any_day: bool,
    any_weekday: bool,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// ```
    /// use onex_crds::schedule::Schedule;
    /// assert_eq!(Schedule::parse("@hourly"), Schedule::parse("0 * * * *"));
    /// assert!(Schedule::parse("0 24 * * *").is_err());
    /// ```
    ///
    /// # Errors
    /// Says what is wrong, in the words of the parser that Kubernetes uses.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        if schedule.starts_with('@') {
            return descriptor(schedule);
        }
        let fields: Vec<&str> = schedule.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let [in_minutes, in_hours, in_days, in_months, in_weekdays] = BOUNDS;
        let (minutes, _) = field(minutes, in_minutes)?;
        let (hours, _) = field(hours, in_hours)?;
        let (days, any_day) = field(days, in_days)?;
        let (months, _) = field(months, in_months)?;
        let (weekdays, any_weekday) = field(weekdays, in_weekdays)?;
        Ok(Self::Fields(Fields { minutes, hours, days, months, weekdays, any_day, any_weekday }))
    }
}

impl Fields {
    /// Whether anything is wanted in this month, from 1.
    pub fn has_month(&self, month: u32) -> bool {
        has(self.months, month)
    }

    /// Whether anything is wanted on this day: of the month, from 1, and of the week, from Sunday as 0.
    pub fn has_day(&self, day: u32, weekday: u32) -> bool {
        let (day, weekday) = (has(self.days, day), has(self.weekdays, weekday));
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }

    /// The first time of a day that is wanted and not before this hour and minute.
    pub fn first_time(&self, hour: u32, minute: u32) -> Option<(u32, u32)> {
        let same_hour = has(self.hours, hour).then(|| first(self.minutes, minute)).flatten();
        match same_hour {
            Some(minute) => Some((hour, minute)),
            None => Some((first(self.hours, hour + 1)?, first(self.minutes, 0)?)),
        }
    }

    /// Whether the schedule goes on through all hours of the day, rather than naming some of them.
    pub fn goes_on_through_the_day(&self) -> bool {
        self.hours == all(BOUNDS[1])
    }
}

fn has(bits: u64, number: u32) -> bool {
    bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1)
}

/// The least of the numbers that is not below `least`.
fn first(bits: u64, least: u32) -> Option<u32> {
    let left = bits.checked_shr(least).filter(|left| *left != 0)?;
    Some(least + left.trailing_zeros())
}

fn all((least, greatest, _): Bounds) -> u64 {
    (least..=greatest).fold(0, |bits, number| bits | 1 << number)
}

fn descriptor(schedule: &str) -> Result<Schedule, String> {
    let same_as = match schedule {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = schedule.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {schedule}"));
            };
            let every = duration::parse(every)
                .map_err(|_| format!("failed to parse duration {schedule}: time: invalid duration {every:?}"))?;
            return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))));
        }
    };
    Schedule::parse(same_as)
}

/// The numbers of one field, and whether it is open.
fn field(field: &str, bounds: Bounds) -> Result<(u64, bool), String> {
    let mut all = (0, false);
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let (bits, open) = range(part, bounds)?;
        all = (all.0 | bits, all.1 || open);
    }
    Ok(all)
}

fn range(expression: &str, (least, greatest, names): Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = expression.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let number = |text: &str| match names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        Some(index) => Ok(u32::try_from(index).unwrap_or(u32::MAX) + u32::from(least == 1)),
        None => whole(text),
    };
    let (start, mut end, star) = match ends.as_slice() {
        ["*" | "?"] => (least, greatest, true),
        [one] => (number(one)?, number(one)?, false),
        [first, last] => (number(first)?, number(last)?, false),
        _ => return Err(format!("too many hyphens: {expression}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = greatest;
            }
            whole(step)?
        }
        _ => return Err(format!("too many slashes: {expression}")),
    };
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {expression}"));
    }
    if end > greatest {
        return Err(format!("end of range ({end}) above maximum ({greatest}): {expression}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {expression}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {expression}"));
    }
    let bits = (start..=end).step_by(step as usize).fold(0, |bits, number| bits | 1 << number);
    Ok((bits, star && step == 1))
}

fn whole(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| match text.parse::<i64>() {
        Ok(number) if number < 0 => format!("negative number ({number}) not allowed: {text}"),
        _ => format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(schedule: &str) -> Fields {
        match Schedule::parse(schedule) {
            Ok(Schedule::Fields(fields)) => fields,
            other => panic!("{schedule}: {other:?}"),
        }
    }

    #[test]
    fn schedules_that_can_be_kept_are_fine() {
        for schedule in ["* * * * *", "*/5 0-6 1,15 JAN-mar ?", "@daily", "@every 1h30m", "0 0 * * 5/2"] {
            assert!(Schedule::parse(schedule).is_ok(), "{schedule}");
        }
    }

    #[test]
    fn others_are_refused_with_a_reason() {
        let cases = [
            ("", "expected exactly 5 fields, found 0: []"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
        ];
        for (schedule, why) in cases {
            assert_eq!(Schedule::parse(schedule), Err(why.to_owned()), "{schedule}");
        }
    }

    #[test]
    fn descriptors_are_short_for_fields() {
        for (descriptor, schedule) in [
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("@monthly", "0 0 1 * *"),
            ("@weekly", "0 0 * * 0"),
            ("@midnight", "0 0 * * *"),
        ] {
            assert_eq!(Schedule::parse(descriptor), Schedule::parse(schedule), "{descriptor}");
        }
        let every = |text| Schedule::parse(text).unwrap();
        assert_eq!(every("@every 90s"), Schedule::Every(Duration::from_secs(90)));
        assert_eq!(every("@every 1ms"), Schedule::Every(Duration::from_secs(1)));
    }

    #[test]
    fn a_day_that_both_fields_name_needs_to_fit_only_one() {
        let friday_or_13th = fields("0 0 13 * 5");
        assert!(friday_or_13th.has_day(13, 1) && friday_or_13th.has_day(2, 5) && !friday_or_13th.has_day(2, 1));
        let fridays = fields("0 0 * * 5");
        assert!(fridays.has_day(2, 5) && !fridays.has_day(13, 1));
        // As Kubernetes has it, a star with a step names days.
        assert!(fields("0 0 */2 * 5").has_day(2, 5));
    }

    #[test]
    fn the_first_time_of_a_day_is_found() {
        let half_past = fields("15,45 8-10 * * *");
        assert_eq!(half_past.first_time(0, 0), Some((8, 15)));
        assert_eq!(half_past.first_time(8, 16), Some((8, 45)));
        assert_eq!(half_past.first_time(8, 46), Some((9, 15)));
        assert_eq!(half_past.first_time(10, 46), None);
        assert!(fields("0 */1 * * *").goes_on_through_the_day() && !half_past.goes_on_through_the_day());
    }
}

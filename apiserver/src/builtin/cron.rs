//! Schedules as cron writes them, and what is wrong with one, in the words of the parser that Kubernetes uses.

/// The fields of a schedule: the least and the greatest number, and the names of numbers.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Nothing if the schedule can be kept.
pub fn check(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        return descriptor(schedule);
    }
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => schedule,
    };
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        for range in field.split(',').filter(|range| !range.is_empty()) {
            check_range(range, bounds)?;
        }
    }
    Ok(())
}

fn descriptor(schedule: &str) -> Result<(), String> {
    const KNOWN: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    match schedule.strip_prefix("@every ") {
        _ if KNOWN.contains(&schedule) => Ok(()),
        Some(duration) if crate::router::go_duration(duration).is_some_and(|_| !duration.is_empty()) => Ok(()),
        Some(duration) => Err(format!("failed to parse duration {schedule}: time: invalid duration {duration:?}")),
        None => Err(format!("unrecognized descriptor: {schedule}")),
    }
}

fn check_range(expression: &str, (least, greatest, names): (u32, u32, &[&str])) -> Result<(), String> {
    let parts: Vec<&str> = expression.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let number = |text: &str| match names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        Some(index) => Ok(u32::try_from(index).unwrap_or(u32::MAX) + u32::from(least == 1)),
        None => whole(text),
    };
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?"] => (least, greatest),
        [one] => (number(one)?, number(one)?),
        [first, last] => (number(first)?, number(last)?),
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
    Ok(())
}

fn whole(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| match text.parse::<i64>() {
        Ok(number) if number < 0 => format!("negative number ({number}) not allowed: {text}"),
        _ => format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"),
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules_that_can_be_kept_are_fine() {
        for schedule in
            ["* * * * *", "*/5 0-6 1,15 JAN-mar ?", "@daily", "@every 1h30m", "0 0 * * 5/2", "TZ=UTC 0 0 * * *"]
        {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn others_are_refused_with_a_reason() {
        let cases = [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
        ];
        for (schedule, expected) in cases {
            assert_eq!(check(schedule), Err(expected.to_owned()), "{schedule}");
        }
    }
}

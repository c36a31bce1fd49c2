//! The schedules of Kubernetes' CronJobs: OneX's, and what else Kubernetes takes.

use onex_crds::schedule::Schedule;

/// Nothing if the schedule can be kept.
pub fn check(schedule: &str) -> Result<(), String> {
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => schedule,
    };
    Schedule::parse(schedule).map(drop)
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

//! When a schedule is due in a time zone. Pure.
//!
//! Clocks are put forward and back. A schedule that goes on through all hours of the day (`*/10 * * * *`) goes by the time that
//! passes: it is due neither more often nor less. One that names hours (`30 2 * * *`) goes by the clock: a time that the clock
//! jumps over is due as much later as it jumps, and one that it shows twice is due the first time.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};
use onex_crds::schedule::{Fields, Schedule};

/// How far ahead is looked. What is not due by then never is: the 29th of February comes within eight years.
const HORIZON: SignedDuration = SignedDuration::from_hours(24 * 366 * 9);

/// The first time after `after` at which the schedule is due; `None` if there is none. `begun`: since when it is followed,
/// from which its periods are counted if it has any.
pub(super) fn next(schedule: &Schedule, zone: &TimeZone, begun: Timestamp, after: Timestamp) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(period) => next_period(*period, begun, after),
        Schedule::Fields(fields) => next_minute(fields, zone, after),
    }
}

/// The last time after `after` and not after `until` at which the schedule is due.
///
/// Looks back from `until`, ever further, so that it does not matter how often it was due before that.
pub(super) fn last(
    schedule: &Schedule,
    zone: &TimeZone,
    begun: Timestamp,
    after: Timestamp,
    until: Timestamp,
) -> Option<Timestamp> {
    let due = |from| next(schedule, zone, begun, from).filter(|due| *due <= until);
    let mut back = SignedDuration::from_secs(1);
    let mut found = loop {
        let from = until.checked_sub(back).ok().filter(|from| *from > after).unwrap_or(after);
        match due(from) {
            Some(found) => break found,
            None if from == after => return None,
            None => back = back.checked_mul(2)?,
        }
    };
    while let Some(later) = due(found) {
        found = later;
    }
    Some(found)
}

/// How often the schedule was due after `after` and not after `until`; of more than `most`, one more is told.
pub(super) fn count(
    schedule: &Schedule,
    zone: &TimeZone,
    begun: Timestamp,
    (after, until): (Timestamp, Timestamp),
    most: usize,
) -> usize {
    let next = |from: &Timestamp| next(schedule, zone, begun, *from).filter(|due| *due <= until);
    std::iter::successors(next(&after), next).take(most + 1).count()
}

fn next_period(period: Duration, begun: Timestamp, after: Timestamp) -> Option<Timestamp> {
    let period = SignedDuration::try_from(period).ok()?;
    let passed = after.duration_since(begun);
    let periods = if passed.is_negative() { 1 } else { passed.as_secs() / period.as_secs().max(1) + 1 };
    let periods = i32::try_from(periods).ok();
    match periods {
        Some(periods) => begun.checked_add(period.checked_mul(periods)?).ok(),
        // After so many periods nobody can tell where they began.
        None => after.checked_add(period).ok(),
    }
}

/// A time during which the clock goes on without a jump.
struct Stretch {
    /// From when; `None` if it has always been so.
    from: Option<Timestamp>,
    /// Until when, and not including it.
    to: Option<Timestamp>,
    offset: Offset,
    /// What the offset was before.
    before: Offset,
}

fn next_minute(fields: &Fields, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let horizon = after.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
    let mut stretch = stretch_at(zone, after);
    loop {
        let to = stretch.to.unwrap_or(horizon).min(horizon);
        if let Some(due) = within(fields, &stretch, after, to) {
            return Some(due);
        }
        if to == horizon {
            return None;
        }
        stretch = stretch_at(zone, to);
    }
}

fn stretch_at(zone: &TimeZone, at: Timestamp) -> Stretch {
    let offset = zone.to_offset(at);
    // Told is what comes strictly before and after.
    let here = at.checked_add(1.nanosecond()).unwrap_or(at);
    let from = zone.preceding(here).next().map(|transition| transition.timestamp());
    let before =
        from.and_then(|from| from.checked_sub(1.nanosecond()).ok()).map_or(offset, |from| zone.to_offset(from));
    let to = zone.following(at).next().map(|transition| transition.timestamp());
    Stretch { from, to, offset, before }
}

/// The first time after `after` within the stretch, and before `to`.
fn within(fields: &Fields, stretch: &Stretch, after: Timestamp, to: Timestamp) -> Option<Timestamp> {
    let by_the_clock = !fields.goes_on_through_the_day();
    let Stretch { from, offset, before, .. } = *stretch;
    // What is due by the clock of this stretch. What the clock shows for the second time is over.
    let shown = |offset: Offset, at: Timestamp| offset.to_datetime(at);
    let mut first = just_after(shown(offset, after))?;
    if let Some(from) = from {
        let again = if by_the_clock { before.max(offset) } else { offset };
        first = first.max(not_before(shown(again, from))?);
    }
    let regular = first_match(fields, first, shown(offset, to)).and_then(|due| offset.to_timestamp(due).ok());
    // What the clock jumped over is due by the clock before.
    let jumped = from.filter(|_| by_the_clock && before < offset).and_then(|from| {
        let first = just_after(shown(before, after))?.max(not_before(shown(before, from))?);
        let due = first_match(fields, first, shown(offset, from))?;
        before.to_timestamp(due).ok()
    });
    regular.into_iter().chain(jumped).min()
}

/// The first whole minute that is later.
fn just_after(time: DateTime) -> Option<DateTime> {
    whole_minute(time).checked_add(1.minute()).ok()
}

/// The first whole minute that is not earlier.
fn not_before(time: DateTime) -> Option<DateTime> {
    let whole = whole_minute(time);
    if whole == time { Some(whole) } else { whole.checked_add(1.minute()).ok() }
}

fn whole_minute(time: DateTime) -> DateTime {
    time.date().at(time.hour(), time.minute(), 0, 0)
}

/// The first minute from `first` on and before `end` that fits.
fn first_match(fields: &Fields, first: DateTime, end: DateTime) -> Option<DateTime> {
    let (mut day, mut hour, mut minute) = (first.date(), number(first.hour()), number(first.minute()));
    while day <= end.date() {
        if !fields.has_month(number(day.month())) {
            day = day.last_of_month().tomorrow().ok()?;
        } else if !has_day(fields, day) {
            day = day.tomorrow().ok()?;
        } else if let Some((hour, minute)) = fields.first_time(hour, minute) {
            let (hour, minute) = (i8::try_from(hour).ok()?, i8::try_from(minute).ok()?);
            return Some(day.at(hour, minute, 0, 0)).filter(|due| *due < end);
        } else {
            day = day.tomorrow().ok()?;
        }
        (hour, minute) = (0, 0);
    }
    None
}

fn has_day(fields: &Fields, day: Date) -> bool {
    fields.has_day(number(day.day()), number(day.weekday().to_sunday_zero_offset()))
}

fn number(part: i8) -> u32 {
    u32::try_from(part).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn schedule(text: &str) -> Schedule {
        Schedule::parse(text).unwrap()
    }

    /// The next times after `after`, as the clocks of the zone show them.
    fn times(text: &str, place: &str, after: &str, many: usize) -> Vec<String> {
        let (schedule, zone) = (schedule(text), zone(place));
        let next = |from: &Timestamp| next(&schedule, &zone, EPOCH, *from);
        let all = std::iter::successors(next(&at(after)), next).take(many);
        all.map(|due| due.to_zoned(zone.clone()).strftime("%m-%d %H:%M%:z").to_string()).collect()
    }

    #[test]
    fn a_time_that_the_clock_jumps_over_is_due_as_much_later() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["03-28 02:30+01:00", "03-29 03:30+02:00", "03-30 02:30+02:00"]
        );
        // Two that come to stand at one time are due once.
        assert_eq!(
            times("0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2),
            ["03-29 03:00+02:00", "03-30 02:00+02:00"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
            ["03-29 01:30+01:00", "03-29 03:00+02:00", "03-29 03:30+02:00"]
        );
    }

    #[test]
    fn a_time_that_the_clock_shows_twice_is_due_once() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["10-25 02:30+02:00", "10-26 02:30+01:00"]
        );
        // Also for who begins between the two.
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:00:00Z", 1), ["10-26 02:30+01:00"]);
        assert_eq!(
            times("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 3),
            ["10-25 02:00+02:00", "10-25 02:00+01:00", "10-25 03:00+01:00"]
        );
    }

    #[test]
    fn a_day_that_a_place_left_out_is_made_up_for() {
        // Samoa went from the 29th to the 31st of December.
        assert_eq!(
            times("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3),
            ["12-29 12:00-10:00", "12-31 12:00+14:00", "01-01 12:00+14:00"]
        );
    }

    #[test]
    fn rare_days_are_found_and_impossible_ones_are_not() {
        assert_eq!(times("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), ["02-29 00:00+00:00"]);
        assert_eq!(times("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1), [""; 0]);
        assert_eq!(
            times("0 0 13 * 5", "UTC", "2026-02-01T00:00:00Z", 3),
            ["02-06 00:00+00:00", "02-13 00:00+00:00", "02-20 00:00+00:00"]
        );
    }

    #[test]
    fn periods_are_counted_from_the_beginning_and_do_not_drift() {
        let (every, begun) = (schedule("@every 90s"), at("2026-01-01T00:00:07Z"));
        let next = |after: &str| next(&every, &TimeZone::UTC, begun, at(after)).unwrap();
        assert_eq!(next("2026-01-01T00:00:00Z"), at("2026-01-01T00:01:37Z"));
        assert_eq!(next("2026-01-01T00:00:07Z"), at("2026-01-01T00:01:37Z"));
        assert_eq!(next("2026-01-01T00:01:36.9Z"), at("2026-01-01T00:01:37Z"));
        assert_eq!(next("2026-01-01T00:01:37Z"), at("2026-01-01T00:03:07Z"));
    }

    #[test]
    fn the_last_time_is_found_at_once_however_long_ago_all_began() {
        let minutely = schedule("* * * * *");
        let until = at("2026-01-01T00:00:30Z");
        let began = std::time::Instant::now();
        assert_eq!(last(&minutely, &TimeZone::UTC, EPOCH, EPOCH, until), Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(last(&minutely, &TimeZone::UTC, EPOCH, at("2026-01-01T00:00:00Z"), until), None);
        assert_eq!(count(&minutely, &TimeZone::UTC, EPOCH, (EPOCH, until), 100), 101);
        let yearly = schedule("@yearly");
        assert_eq!(
            last(&yearly, &TimeZone::UTC, EPOCH, EPOCH, at("2026-12-31T00:00:00Z")),
            Some(at("2026-01-01T00:00:00Z"))
        );
        assert_eq!(count(&yearly, &TimeZone::UTC, EPOCH, (at("2020-06-01T00:00:00Z"), until), 100), 6);
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    fn field(least: u32, greatest: u32) -> impl Strategy<Value = String> {
        prop_oneof![
            2 => Just("*".to_owned()),
            1 => (1..10_u32).prop_map(|step| format!("*/{step}")),
            1 => (least..=greatest).prop_map(|number| number.to_string()),
            1 => (least..=greatest, least..=greatest).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (least..=greatest, least..=greatest).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    fn any_schedule() -> impl Strategy<Value = String> {
        let minute = prop_oneof![Just("0".to_owned()), Just("*/20".to_owned()), field(0, 59)];
        (minute, field(0, 23), field(1, 31), field(1, 12), field(0, 6))
            .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
    }

    /// Moments around which clocks are put forward or back, and others.
    fn any_moment() -> impl Strategy<Value = Timestamp> {
        let near =
            |time: &'static str| (-50_000..50_000_i64).prop_map(move |off| at(time) + SignedDuration::from_secs(off));
        prop_oneof![
            near("2026-03-29T01:00:00Z"),
            near("2026-10-25T01:00:00Z"),
            near("2026-03-08T07:00:00Z"),
            near("2026-11-01T06:00:00Z"),
            near("2026-04-04T15:00:00Z"),
            (1_700_000_000..1_900_000_000_i64).prop_map(|second| Timestamp::from_second(second).unwrap()),
        ]
    }

    fn any_place() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
    }

    /// Whether the fields fit what the clock shows.
    fn fits(fields: &Fields, shown: DateTime) -> bool {
        let (hour, minute) = (number(shown.hour()), number(shown.minute()));
        fields.has_month(number(shown.month()))
            && has_day(fields, shown.date())
            && fields.first_time(hour, minute) == Some((hour, minute))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn the_next_time_is_later_and_none_is_left_out(text in any_schedule(), place in any_place(), after in any_moment()) {
            let (schedule, zone) = (schedule(&text), zone(place));
            let Schedule::Fields(fields) = schedule else { unreachable!() };
            let due = next(&schedule, &zone, EPOCH, after);
            if let Some(due) = due {
                prop_assert!(due > after);
                prop_assert_eq!(due.as_second() % 60, 0);
            }
            // Minute by minute, for three days at most: what the clock shows for the first time and fits is not passed over.
            let until = due.unwrap_or(Timestamp::MAX).min(after + SignedDuration::from_hours(72));
            let first = after.as_second().div_euclid(60) + 1;
            for minute in (first..).map(|minute| Timestamp::from_second(minute * 60).unwrap()).take_while(|at| *at < until) {
                let shown = zone.to_datetime(minute);
                let again = zone.to_ambiguous_timestamp(shown).compatible().unwrap() != minute;
                let over = again && !fields.goes_on_through_the_day();
                prop_assert!(over || !fits(&fields, shown), "{text} in {place} passes over {minute}");
            }
        }

        #[test]
        fn what_is_due_fits_the_clock_or_was_jumped_over(text in any_schedule(), place in any_place(), after in any_moment()) {
            let (schedule, zone) = (schedule(&text), zone(place));
            let Schedule::Fields(fields) = schedule else { unreachable!() };
            if let Some(due) = next(&schedule, &zone, EPOCH, after) {
                let shown = zone.to_datetime(due);
                // What was jumped over is what the clock would show had it not been put forward.
                let unmoved = |hours: i64| {
                    let earlier = due - SignedDuration::from_hours(hours);
                    zone.to_offset(earlier).to_datetime(due)
                };
                prop_assert!(fits(&fields, shown) || fits(&fields, unmoved(1)) || fits(&fields, unmoved(2)), "{due}");
            }
        }

        #[test]
        fn the_last_time_is_the_last_of_all(text in any_schedule(), place in any_place(), until in any_moment()) {
            let (schedule, zone) = (schedule(&text), zone(place));
            let after = until - SignedDuration::from_hours(30);
            let all = std::iter::successors(Some(after), |from| next(&schedule, &zone, EPOCH, *from).filter(|due| *due <= until));
            let expected = all.skip(1).last();
            prop_assert_eq!(last(&schedule, &zone, EPOCH, after, until), expected);
        }
    }
}

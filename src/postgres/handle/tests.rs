use super::*;

/// The loop runs these in tasks of their own.
#[test]
fn long_operations_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    let postgres = Postgres::new(Setup::default(), Parameters::default());
    is_send(&postgres.prepare_promotion(Duration::ZERO));
    is_send(&postgres.start_standby(None, Duration::ZERO));
    is_send(&postgres.stop(StopMode::Fast, Duration::ZERO));
    is_send(&postgres.bootstrap());
    is_send(&postgres.crash_recovery());
    is_send(&postgres.sql_facts());
    is_send(&postgres.apply(Parameters::default()));
}

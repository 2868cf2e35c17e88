use klamm_pb::controller::v1::{AlterConfigsOutcome, Refusal};

use super::*;
use crate::fixture::{Bed, answer, context_of};
use crate::handlers::alter_configs::AlterConfigsHandler;
use crate::handlers::incremental_alter_configs::IncrementalAlterConfigsHandler;
use klamm_protocol::messages::{AlterConfigsRequest, IncrementalAlterConfigsRequest};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;

fn change(kind: i8, name: &str, operations: &[(i8, &str, Option<&str>)]) -> ResourceChange {
    let operation = |(kind, key, value): &(i8, &str, Option<&str>)| Operation {
        kind: *kind,
        key: (*key).to_owned(),
        value: value.map(str::to_owned),
    };
    ResourceChange {
        kind,
        name: name.to_owned(),
        operations: operations.iter().map(operation).collect(),
        replace_all: false,
    }
}

fn outcome(codes: &[ErrorCode]) -> Outcome {
    let resource = |code: &ErrorCode| AlteredResource {
        refusal: Some(Refusal { code: i32::from(code.code()), message: "why".to_owned() }),
        ..AlteredResource::default()
    };
    Outcome::AlterConfigs(AlterConfigsOutcome { resources: codes.iter().map(resource).collect() })
}

fn apply(bed: &Arc<Bed>, changes: Vec<ResourceChange>, validate_only: bool) -> Vec<(i8, String, i16)> {
    let all = ConfigChanges::new(bed.cluster(), bed.loggers());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcomes = runtime.block_on(all.apply(changes, validate_only)).into_iter();
    outcomes.map(|(kind, name, result)| (kind, name, crate::submission::told(result).0)).collect()
}

#[test]
fn outcomes_keep_the_order_of_the_request_whoever_gives_them() {
    let bed = Bed::with_brokers(&[(1, false)]);
    bed.levels.lock().unwrap().insert("root".to_owned(), "INFO".to_owned());
    bed.reply(Ok(outcome(&[ErrorCode::None, ErrorCode::InvalidConfig])));
    let outcomes = apply(
        &bed,
        vec![
            change(TOPIC, "a", &[(APPEND, "cleanup.policy", Some("compact"))]),
            change(9, "x", &[]),
            change(LOGGER, "1", &[(SET, "root", Some("DEBUG"))]),
            change(BROKER, "", &[(DELETE, "message.max.bytes", Some("ignored"))]),
        ],
        false,
    );
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(
        outcomes,
        [
            (TOPIC, "a".to_owned(), 0),
            (9, "x".to_owned(), invalid),
            (LOGGER, "1".to_owned(), 0),
            (BROKER, String::new(), ErrorCode::InvalidConfig.code()),
        ]
    );
    let [Change::AlterConfigs(asked)] = &bed.changes()[..] else { panic!("one change") };
    assert!(!asked.validate_only);
    let operations: Vec<_> = asked.resources.iter().flat_map(|r| &r.operations).collect();
    assert_eq!((operations[0].kind(), operations[0].value.as_deref()), (Kind::Append, Some("compact")));
    assert_eq!((operations[1].kind(), operations[1].value.as_deref()), (Kind::Delete, None));
    assert_eq!(bed.levels.lock().unwrap()["root"], "DEBUG");
}

#[test]
fn what_is_malformed_is_refused_without_asking() {
    let bed = Bed::with_brokers(&[(1, false)]);
    for malformed in [
        change(TOPIC, "a", &[(SET, "k", None)]),
        change(TOPIC, "a", &[(SET, "k", Some("1")), (DELETE, "k", None)]),
        change(TOPIC, "a", &[(4, "k", Some("1"))]),
        change(TOPIC, "a", &[(-1, "k", Some("1"))]),
        change(TOPIC, "", &[]),
        change(BROKER, "one", &[]),
        change(LOGGER, "2", &[(SET, "root", Some("DEBUG"))]),
        change(LOGGER, "1", &[(APPEND, "root", Some("DEBUG"))]),
        ResourceChange { replace_all: true, ..change(LOGGER, "1", &[]) },
    ] {
        let outcomes = apply(&bed, vec![malformed.clone()], false);
        assert_eq!(outcomes[0].2, ErrorCode::InvalidRequest.code(), "{malformed:?}");
    }
    let twice = vec![change(TOPIC, "a", &[]), change(BROKER, "a", &[]), change(TOPIC, "a", &[])];
    let outcomes = apply(&bed, twice, false);
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|outcome| outcome.2 == ErrorCode::InvalidRequest.code()));
    assert!(bed.changes().is_empty());
}

#[test]
fn loggers_that_are_only_checked_keep_their_levels() {
    let bed = Bed::with_brokers(&[(1, false)]);
    bed.levels.lock().unwrap().insert("root".to_owned(), "INFO".to_owned());
    let outcomes = apply(&bed, vec![change(LOGGER, "1", &[(SET, "root", Some("DEBUG"))])], true);
    assert_eq!((outcomes[0].2, bed.levels.lock().unwrap()["root"].as_str()), (0, "INFO"));
    let outcomes = apply(&bed, vec![change(LOGGER, "1", &[(SET, "none", Some("DEBUG"))])], true);
    assert_eq!(outcomes[0].2, ErrorCode::InvalidConfig.code());
}

#[test]
fn no_answer_refuses_what_was_passed_on_and_nothing_else() {
    let bed = Bed::with_brokers(&[(1, false)]);
    bed.reply(Err(GatewayError::TimedOut));
    let outcomes = apply(&bed, vec![change(9, "x", &[]), change(TOPIC, "a", &[])], false);
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.2).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest.code(), ErrorCode::RequestTimedOut.code()]);
}

#[test]
fn the_older_api_replaces_all_settings_and_the_newer_one_does_not() {
    use klamm_protocol::messages::{
        alter_configs_request as all, incremental_alter_configs_request as single,
    };
    let bed = Bed::with_brokers(&[(1, false)]);
    let changes = || Arc::new(ConfigChanges::new(bed.cluster(), bed.loggers()));
    bed.reply(Ok(outcome(&[ErrorCode::None])));
    bed.reply(Ok(outcome(&[ErrorCode::InvalidConfig])));

    let config = all::AlterableConfig { name: "k".to_owned(), value: Some("1".to_owned()) };
    let resource = all::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "a".to_owned(),
        configs: vec![config],
    };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: true };
    let handler = AlterConfigsHandler::new(changes());
    let response =
        answer(crate::table::Handler::handle(&handler, context_of::<AlterConfigsRequest>(2), request));
    let told = &response.responses[0];
    assert_eq!((told.resource_type, told.error_code, told.error_message.as_deref()), (TOPIC, 0, None));

    let config = single::AlterableConfig {
        name: "k".to_owned(),
        config_operation: SUBTRACT,
        value: Some("1".to_owned()),
    };
    let resource = single::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "a".to_owned(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let handler = IncrementalAlterConfigsHandler::new(changes());
    let context = context_of::<IncrementalAlterConfigsRequest>(1);
    let response = answer(crate::table::Handler::handle(&handler, context, request));
    let told = &response.responses[0];
    let code = ErrorCode::InvalidConfig.code();
    assert_eq!((told.error_code, told.error_message.as_deref()), (code, Some("why")));

    let [Change::AlterConfigs(all), Change::AlterConfigs(single)] = &bed.changes()[..] else {
        panic!("two changes")
    };
    assert!(all.resources[0].replace_all && all.validate_only);
    assert!(!single.resources[0].replace_all && !single.validate_only);
    assert_eq!(single.resources[0].operations[0].kind(), Kind::Subtract);
}

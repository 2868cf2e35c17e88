use super::*;

/// The first error counts.
fn over(base: &LogConfig, overrides: &[(&str, &str)]) -> Result<LogConfig, ConfigError> {
    let (config, errors) = LogConfig::from_overrides(base, overrides.iter().copied());
    errors.into_iter().next().map_or(Ok(config), Err)
}

fn config(overrides: &[(&str, &str)]) -> Result<LogConfig, ConfigError> {
    over(&LogConfig::default(), overrides)
}

fn accepts(name: &str, value: &str) -> bool {
    match config(&[(name, value)]) {
        Ok(config) => {
            let def = TopicConfigDef::find(name).unwrap();
            let shown = def.value_in(&config);
            let again = self::config(&[(name, &shown)]).unwrap();
            assert_eq!(again, config, "{name}={value} is shown as {shown:?}");
            true
        }
        Err(ConfigError::InvalidValue { name: told, value: shown, allowed }) => {
            assert_eq!((told, shown.as_str()), (name, value));
            assert!(!allowed.is_empty());
            false
        }
        Err(e) => panic!("{name}={value}: {e}"),
    }
}

type Row = (&'static str, ConfigKind, &'static str, &'static [&'static str], &'static [&'static str]);

/// Kafka 4.3's topic settings: name, default, values that are legal, values that are not.
#[rustfmt::skip]
const KAFKA: [Row; 33] = [
    ("cleanup.policy", ConfigKind::List, "delete", &["compact", "delete", "compact,delete", "delete , compact", "", "delete,delete"], &["Delete", "keep", "compact,", "compact;delete"]),
    ("compression.type", ConfigKind::String, "producer", &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"], &["none", "GZIP", "", "brotli"]),
    ("compression.gzip.level", ConfigKind::Int, "-1", &["-1", "1", "9"], &["-2", "0", "10", ""]),
    ("compression.lz4.level", ConfigKind::Int, "9", &["1", "17"], &["0", "18", "-1"]),
    ("compression.zstd.level", ConfigKind::Int, "3", &["-131072", "22", "0"], &["-131073", "23"]),
    ("delete.retention.ms", ConfigKind::Long, "86400000", &["0", "9223372036854775807"], &["-1", "9223372036854775808", "1.5"]),
    ("file.delete.delay.ms", ConfigKind::Long, "60000", &["0"], &["-1"]),
    ("flush.messages", ConfigKind::Long, "9223372036854775807", &["1"], &["0"]),
    ("flush.ms", ConfigKind::Long, "9223372036854775807", &["0"], &["-1"]),
    ("follower.replication.throttled.replicas", ConfigKind::List, "", &["*", "0:1", "0:1,1:2", ""], &["0", "0:", ":1", "a:b", "-1:0", "+1:0", "0:1,*", "0:99999999999"]),
    ("index.interval.bytes", ConfigKind::Int, "4096", &["0", "2147483647"], &["-1", "2147483648"]),
    ("leader.replication.throttled.replicas", ConfigKind::List, "", &["*", "3:4"], &["3-4"]),
    ("local.retention.bytes", ConfigKind::Long, "-2", &["-2"], &["-3", "x"]),
    ("local.retention.ms", ConfigKind::Long, "-2", &["-2"], &["-3", "x"]),
    ("max.compaction.lag.ms", ConfigKind::Long, "9223372036854775807", &["1"], &["0"]),
    ("max.message.bytes", ConfigKind::Int, "1048588", &["0", "2147483647"], &["-1", "2147483648"]),
    ("message.timestamp.after.max.ms", ConfigKind::Long, "3600000", &["0", "9223372036854775807"], &["-1"]),
    ("message.timestamp.before.max.ms", ConfigKind::Long, "9223372036854775807", &["0"], &["-1"]),
    ("message.timestamp.type", ConfigKind::String, "CreateTime", &["CreateTime", "LogAppendTime"], &["createtime", ""]),
    ("min.cleanable.dirty.ratio", ConfigKind::Double, "0.5", &["0", "1", "0.25", "5e-1"], &["-0.1", "1.01", "NaN", "half", ""]),
    ("min.compaction.lag.ms", ConfigKind::Long, "0", &["0", "9223372036854775807"], &["-1"]),
    ("min.insync.replicas", ConfigKind::Int, "1", &["1", " 2 "], &["0", "-1"]),
    ("preallocate", ConfigKind::Boolean, "false", &["true", "False"], &["yes", "1", ""]),
    ("remote.log.copy.disable", ConfigKind::Boolean, "false", &["false"], &["no"]),
    ("remote.log.delete.on.disable", ConfigKind::Boolean, "false", &["false"], &["no"]),
    ("remote.storage.enable", ConfigKind::Boolean, "false", &["FALSE"], &["no"]),
    ("retention.bytes", ConfigKind::Long, "-1", &["-9223372036854775808", "-1", "0", "9223372036854775807"], &["all"]),
    ("retention.ms", ConfigKind::Long, "604800000", &["-1", "0", "9223372036854775807"], &["-2"]),
    ("segment.bytes", ConfigKind::Int, "1073741824", &["1048576", "2147483647"], &["1048575", "2147483648"]),
    ("segment.index.bytes", ConfigKind::Int, "10485760", &["4", "2147483647"], &["3"]),
    ("segment.jitter.ms", ConfigKind::Long, "0", &["0"], &["-1"]),
    ("segment.ms", ConfigKind::Long, "604800000", &["1"], &["0"]),
    ("unclean.leader.election.enable", ConfigKind::Boolean, "false", &["true", "false"], &["on"]),
];

#[test]
fn every_setting_of_kafka_has_its_type_default_and_bounds() {
    for (name, kind, default, legal, illegal) in KAFKA {
        let def = TopicConfigDef::find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!((def.kind(), def.default), (kind, default), "{name}");
        assert!(accepts(name, default), "{name}={default}");
        for value in legal {
            assert!(accepts(name, value), "{name}={value}");
        }
        for value in illegal {
            assert!(!accepts(name, value), "{name}={value}");
        }
    }
}

#[test]
fn the_table_has_kafkas_settings_and_write_caching_in_order() {
    let names: Vec<_> = definitions().iter().map(|def| def.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b));
    let mut wanted: Vec<_> = KAFKA.iter().map(|row| row.0).chain(["write.caching"]).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    assert!(definitions().iter().all(|def| def.doc.len() > 30 && !def.allowed().is_empty()));
}

#[test]
fn the_defaults_of_the_struct_are_those_of_the_table() {
    let defaults = LogConfig::default();
    for def in definitions() {
        assert_eq!(def.value_in(&defaults), def.default, "{}", def.name);
    }
    assert_eq!(config(&[]).unwrap(), defaults);
    let texts: Vec<_> = definitions().iter().map(|def| (def.name, def.default)).collect();
    assert_eq!(config(&texts).unwrap(), defaults);
}

#[test]
fn each_setting_changes_its_own_field() {
    for (name, value) in [
        ("segment.bytes", "2097152"),
        ("max.message.bytes", "7"),
        ("retention.ms", "-1"),
        ("retention.bytes", "9"),
        ("flush.messages", "3"),
        ("write.caching", "true"),
        ("leader.replication.throttled.replicas", "1:2"),
    ] {
        let changed = config(&[(name, value)]).unwrap();
        for def in definitions() {
            let wanted = if def.name == name { value } else { def.default };
            assert_eq!(def.value_in(&changed), wanted, "{} after {name}={value}", def.name);
        }
    }
    let all = config(&[("retention.bytes", "-7"), ("cleanup.policy", ""), ("retention.ms", "0")]).unwrap();
    assert_eq!((all.retention_bytes, all.retention_ms), (None, Some(0)));
    assert_eq!(all.cleanup_policy, CleanupPolicy { delete: false, compact: false });
}

#[test]
fn tiered_storage_is_refused_clearly() {
    for (name, value) in [
        ("remote.storage.enable", "true"),
        ("remote.log.copy.disable", "true"),
        ("remote.log.delete.on.disable", "TRUE"),
        ("local.retention.ms", "1000"),
        ("local.retention.bytes", "-1"),
    ] {
        let error = config(&[(name, value)]).unwrap_err();
        assert!(matches!(error, ConfigError::NotSupported { name: told, .. } if told == name), "{error}");
        assert!(error.to_string().contains("not supported yet"), "{error}");
        assert!(!error.is_retryable());
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest_known_one() {
    let nearest = |name| match config(&[(name, "1")]) {
        Err(ConfigError::UnknownName { nearest, .. }) => nearest,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(nearest("retention.milis"), Some("retention.ms"));
    assert_eq!(nearest("retention_ms"), Some("retention.ms"));
    assert_eq!(nearest("min.insync.replica"), Some("min.insync.replicas"));
    assert_eq!(nearest("Segment.Bytes"), Some("segment.bytes"));
    assert_eq!(nearest("colour"), None);
    assert_eq!(nearest(""), None);
    let long = "x".repeat(100_000);
    let Err(ConfigError::UnknownName { name, nearest: None }) = config(&[(&long, "")]) else { panic!() };
    assert_eq!(name.len(), ConfigError::TEXT_LEN_MAX);
    let text = config(&[("segment.byte", "1")]).unwrap_err().to_string();
    assert_eq!(text, "unknown topic setting segment.byte, did you mean segment.bytes?");
}

#[test]
fn an_invalid_value_is_told_with_what_is_allowed() {
    let text = |name, value| config(&[(name, value)]).unwrap_err().to_string();
    assert_eq!(
        text("segment.bytes", "12"),
        "invalid value \"12\" for segment.bytes: must be an integer of 32 bits, at least 1048576"
    );
    assert_eq!(
        text("compression.lz4.level", "18"),
        "invalid value \"18\" for compression.lz4.level: must be an integer from 1 to 17"
    );
    assert!(text("compression.type", "none").ends_with("zstd, lz4, snappy, gzip, producer"));
}

#[test]
fn compaction_lags_must_not_contradict_each_other() {
    let lags = [("min.compaction.lag.ms", "11"), ("max.compaction.lag.ms", "10")];
    assert_eq!(config(&lags), Err(ConfigError::CompactionLags { min_ms: 11, max_ms: 10 }));
    assert!(config(&[lags[0], ("max.compaction.lag.ms", "11")]).is_ok());
}

#[test]
fn the_last_of_two_values_holds_and_overrides_lie_over_the_base() {
    let base = config(&[("segment.ms", "5"), ("retention.ms", "7")]).unwrap();
    let over = self::over(&base, &[("segment.ms", "6"), ("segment.ms", "8")]).unwrap();
    assert_eq!((over.segment_ms, over.retention_ms), (8, Some(7)));
}

#[test]
fn compression_names_map_to_codec_and_level() {
    let target = |overrides: &[(&str, &str)]| config(overrides).unwrap().compression();
    assert_eq!(target(&[]), None);
    assert_eq!(target(&[("compression.type", "uncompressed")]), Some(Compression::NONE));
    let zstd = target(&[("compression.type", "zstd"), ("compression.zstd.level", "19")]);
    assert_eq!(zstd, Some(Compression::new(Codec::Zstd, 19).unwrap()));
    let gzip = target(&[("compression.type", "gzip")]);
    assert_eq!(gzip, Some(Compression::new(Codec::Gzip, -1).unwrap()));
    let lz4 = target(&[("compression.type", "lz4"), ("compression.lz4.level", "1")]);
    assert_eq!(lz4, Some(Compression::new(Codec::Lz4, 1).unwrap()));
    assert_eq!(target(&[("compression.type", "snappy")]).map(|c| c.codec()), Some(Codec::Snappy));
    let broken = LogConfig { compression_type: Some(Codec::Lz4), lz4_level: 99, ..LogConfig::default() };
    assert_eq!(broken.compression(), Some(Codec::Lz4.into()));
}

#[test]
fn level_bounds_agree_with_the_codecs() {
    for (name, codec) in [("gzip", Codec::Gzip), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)] {
        let name = format!("compression.{name}.level");
        let (least, default, most) = codec.levels().unwrap();
        assert_eq!(TopicConfigDef::find(&name).unwrap().default, default.to_string());
        for level in [least - 1, least, 0, 1, default, most, most + 1] {
            assert_eq!(
                accepts(&name, &level.to_string()),
                Compression::new(codec, level).is_ok(),
                "{name}={level}"
            );
        }
    }
}

#[test]
fn broker_properties_give_the_defaults_the_finer_unit_first() {
    let defaults = |properties: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        LogConfig::from_broker_properties(&properties.iter().map(own).collect())
    };
    assert_eq!(defaults(&[("node.id", "1")]).unwrap(), LogConfig::default());
    let hours = defaults(&[("log.retention.hours", "2"), ("log.roll.hours", "1")]).unwrap();
    assert_eq!((hours.retention_ms, hours.segment_ms), (Some(7_200_000), 3_600_000));
    let finer = [("log.retention.hours", "2"), ("log.retention.minutes", "3"), ("log.retention.ms", "4")];
    assert_eq!(defaults(&finer).unwrap().retention_ms, Some(4));
    assert_eq!(defaults(&finer[..2]).unwrap().retention_ms, Some(180_000));
    assert_eq!(defaults(&[("log.retention.hours", "-1")]).unwrap().retention_ms, None);
    assert_eq!(defaults(&[("message.max.bytes", "5")]).unwrap().max_message_bytes, 5);
    assert_eq!(defaults(&[("min.insync.replicas", "2")]).unwrap().min_insync_replicas, 2);
    let error = defaults(&[("log.roll.hours", "0")]).unwrap_err();
    assert!(error.to_string().contains("log.roll.hours"), "{error}");
}

#[test]
fn broker_names_are_kafkas() {
    let name = |topic| TopicConfigDef::find(topic).unwrap().broker_synonyms.first().map(|s| s.name);
    for (topic, broker) in [
        ("cleanup.policy", "log.cleanup.policy"),
        ("delete.retention.ms", "log.cleaner.delete.retention.ms"),
        ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
        ("flush.messages", "log.flush.interval.messages"),
        ("flush.ms", "log.flush.interval.ms"),
        ("index.interval.bytes", "log.index.interval.bytes"),
        ("local.retention.bytes", "log.local.retention.bytes"),
        ("local.retention.ms", "log.local.retention.ms"),
        ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
        ("max.message.bytes", "message.max.bytes"),
        ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
        ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
        ("message.timestamp.type", "log.message.timestamp.type"),
        ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
        ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
        ("preallocate", "log.preallocate"),
        ("retention.bytes", "log.retention.bytes"),
        ("retention.ms", "log.retention.ms"),
        ("segment.bytes", "log.segment.bytes"),
        ("segment.index.bytes", "log.index.size.max.bytes"),
        ("segment.jitter.ms", "log.roll.jitter.ms"),
        ("segment.ms", "log.roll.ms"),
    ] {
        assert_eq!(name(topic), Some(broker));
    }
    for same in [
        "compression.type",
        "compression.gzip.level",
        "min.insync.replicas",
        "unclean.leader.election.enable",
    ] {
        assert_eq!(name(same), Some(same));
    }
    assert_eq!(name("write.caching"), Some("klamm.write.caching"), "ours, so it says whose it is");
    for none in ["remote.storage.enable", "leader.replication.throttled.replicas"] {
        assert_eq!(name(none), None);
    }
}

/// One setting that does not read took all others of its topic with it, and the defaults deleted what was to be kept.
#[test]
fn what_is_in_force_and_does_not_read_leaves_the_rest_alone() {
    let base = LogConfig { max_compaction_lag_ms: 7, ..LogConfig::default() };
    let kept = [
        ("cleanup.policy", "compact,"),
        ("internal.segment.bytes", "1000"),
        ("max.compaction.lag.ms", "5"),
        ("min.compaction.lag.ms", "10"),
        ("no.such.setting", "1"),
        ("retention.ms", "-1"),
        ("segment.bytes", "2000000"),
    ];
    let (config, errors) = LogConfig::from_overrides(&base, kept);
    assert_eq!(errors.len(), 3, "{errors:?}");
    let expected = LogConfig { retention_ms: None, segment_bytes: 1000, ..base.clone() };
    assert_eq!(config, expected);
    let properties = [("log.retention.ms", "-1"), ("log.cleanup.policy", "x")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (config, errors) = LogConfig::from_kept_broker_properties(&properties);
    assert_eq!((config.retention_ms, errors.len()), (None, 1));
}

#[test]
fn commas_with_nothing_between_them_throttle_nothing() {
    for text in ["", ",", "0:1,", "*"] {
        assert_eq!(LogConfig::check("leader.replication.throttled.replicas", text), Ok(()), "{text:?}");
    }
    assert!(LogConfig::check("cleanup.policy", ",").is_err());
}

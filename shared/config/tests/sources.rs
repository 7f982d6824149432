//! From file, environment and flags to a configuration, or to an error that says what is right.

use std::{net::SocketAddr, time::Duration};

use config::{Config, ConfigError, LogLevel, Machine, MetadataLocation, Secret, ServiceName, Sources, keys};

const GIB: u64 = 1 << 30;
const MACHINE: Machine = Machine { cores: 2, memory_bytes: 100 * GIB };

const KEY: &str = "0123456789abcdef";

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let file = Some(("truenow.toml".into(), file.into()));
    Sources { file, environment: owned(environment), flags: owned(flags) }.into_config(&MACHINE)
}

fn error(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load(file, environment, flags).expect_err("this is no configuration").to_string()
}

/// Goal: without any source the contract's defaults hold.
#[test]
fn defaults_are_those_of_the_contract() {
    let config = Sources::default().into_config(&MACHINE).unwrap();
    assert_eq!(config.gateway.rate_limit, 1_000_000);
    assert_eq!(config.hot_tier.memory_bytes, 32 * GIB);
    assert_eq!(config.query_api.cache_ttl, Duration::from_secs(60));
    assert_eq!(config.stream_ingester.batch_size, 1_000);
    assert_eq!((config.partitions, config.auto_create_tables), (4, true));
    assert!(!config.authenticated());
    assert_eq!(config.services, ServiceName::ALL);
    let ports: Vec<(u16, u16)> = ServiceName::ALL
        .iter()
        .map(|service| (config.addresses(*service).http.port(), config.addresses(*service).grpc.port()))
        .collect();
    let expected = [(8001, 9080), (9090, 9091), (8100, 9100), (8084, 9084), (8086, 9086), (8081, 9081), (8088, 9088)];
    assert_eq!(ports, expected);
    assert_eq!(config.addresses(ServiceName::Gateway).http, SocketAddr::from(([127, 0, 0, 1], 8088)));
}

/// Goal: flags win over the environment, that over the file, that over defaults; and both names of a variable work.
#[test]
fn later_sources_win() {
    let file = "auto_create_tables = false\nservices = [\"hot-tier\", \"stream-ingester\", \"control-plane\"]\n\
                [gateway]\nrate_limit = 1\ntenant_rate_limit = 1\n[log]\nlevel = \"debug\"\n";
    let environment =
        [("GATEWAY_RATE_LIMIT", "2"), ("TRUENOW_GATEWAY_TENANT_RATE_LIMIT", "2"), ("HOME", "/"), ("GATEWAY_HOST", "x")];
    let environment = [&environment[..], &[("TRUENOW_CLUSTER_KEY", KEY), ("TRUENOW_CLUSTER_NODE_ID", "7")]].concat();
    let config = load(file, &environment, &[("gateway.tenant_rate_limit", "3")]).unwrap();
    assert_eq!((config.gateway.rate_limit, config.gateway.tenant_rate_limit), (2, 3));
    assert_eq!((config.log.level, config.auto_create_tables), (LogLevel::Debug, false));
    // In the order in which they start, whatever the order given.
    assert_eq!(config.services, [ServiceName::ControlPlane, ServiceName::HotTier, ServiceName::StreamIngester]);
    let long = load("", &[("TRUENOW_GATEWAY_RATE_LIMIT", "5")], &[]).unwrap();
    assert_eq!(long.gateway.rate_limit, 5);
    assert_eq!(long.gateway.tenant_rate_limit, 5, "one tenant may use all that there is unless said otherwise");
}

/// Goal: a process that runs some of the services, or names a control plane, is told all that a cluster needs, or stops by the
/// name of what is missing; one that runs all of them needs nothing.
#[test]
fn a_part_belongs_to_a_cluster() {
    assert!(load("", &[("TRUENOW_CLUSTER_KEY", KEY)], &[]).unwrap().cluster.is_none());
    let gateway = [("TRUENOW_SERVICES", "gateway"), ("TRUENOW_CLUSTER_KEY", KEY)];
    let with = |more: &[(&'static str, &'static str)]| [&gateway[..], more].concat();
    assert!(error("", &gateway[..1], &[]).contains("cluster_key"));
    assert!(error("", &gateway, &[]).contains("cluster.control_plane"));
    let there = ("TRUENOW_CLUSTER_CONTROL_PLANE", "10.0.0.1:9080, 10.0.0.2:9080");
    let cluster = load("", &with(&[there]), &[]).unwrap().cluster.unwrap();
    assert_eq!(cluster.control_planes, ["10.0.0.1:9080", "10.0.0.2:9080"]);
    assert_eq!(
        (cluster.node, &cluster.advertise[..], cluster.replicas, cluster.nodes_first),
        (None, "127.0.0.1", 2, 1)
    );
    let everywhere = with(&[there, ("TRUENOW_BIND", "0.0.0.0"), ("TRUENOW_API_KEY", KEY)]);
    assert!(error("", &everywhere, &[]).contains("cluster.advertise"));
    let alone = with(&[there, ("TRUENOW_SERVICES", "hot-tier")]);
    assert!(error("", &alone, &[]).contains("one process"));
    let nameless = with(&[there, ("TRUENOW_SERVICES", "hot-tier,stream-ingester")]);
    assert!(error("", &nameless, &[]).contains("cluster.node_id"));
    assert!(error("", &with(&[there, ("TRUENOW_CLUSTER_REPLICAS", "0")]), &[]).contains("from 1"));
    let weak = error("", &with(&[("TRUENOW_CLUSTER_KEY", "hunter2")]), &[]);
    assert!(weak.contains("cluster_key") && !weak.contains("hunter2"), "{weak}");
    let all = load("", &[there, ("TRUENOW_CLUSTER_KEY", KEY), ("TRUENOW_CLUSTER_NODE_ID", "3")], &[]).unwrap();
    assert_eq!(all.cluster.as_ref().unwrap().node, Some(types::NodeId(3)));
    assert!(!format!("{all:?}").contains(KEY));
}

/// Goal: the hot tier never takes more than 60 % of what the machine has, and may take less than a GB.
#[test]
fn memory_is_bounded_by_the_machine() {
    let small = Machine { memory_bytes: 10 * GIB, ..MACHINE };
    let config = Sources::default().into_config(&small).unwrap();
    assert_eq!(config.hot_tier.memory_bytes, 10 * GIB / 100 * 60);
    let config = load("", &[("HOT_TIER_MEMORY_GB", "0.5")], &[]).unwrap();
    assert_eq!(config.hot_tier.memory_bytes, GIB / 2);
    assert!(error("", &[("HOT_TIER_MEMORY_GB", "NaN")], &[]).contains("hot_tier.memory_gb"));
}

/// Goal: an error names where, the key, the value and what is right; an unknown key its most likely meaning.
#[test]
fn errors_say_what_is_right() {
    let cases: &[(String, &[&str])] = &[
        (
            error("[gateway]\nrate_limits = 5", &[], &[]),
            &["truenow.toml", "gateway.rate_limits", "gateway.rate_limit?"],
        ),
        (error("[gatway]\nrate_limit = 5", &[], &[]), &["gatway.rate_limit", "gateway.rate_limit?"]),
        (error("gateway = 5", &[], &[]), &["unknown setting gateway"]),
        (error("[gateway", &[], &[]), &["truenow.toml", "not valid TOML"]),
        (error("[gateway]\nrate_limit = -5", &[], &[]), &["gateway.rate_limit", "-5", "an integer"]),
        (error("", &[("TRUENOW_GATEWAY_RATE", "5")], &[]), &["environment", "TRUENOW_GATEWAY_RATE", "unknown"]),
        (error("", &[("QUERY_CACHE_TTL", "soon")], &[]), &["environment", "QUERY_CACHE_TTL", "soon", "an integer"]),
        (
            error("", &[("GATEWAY_RATE_LIMIT", "0")], &[]),
            &["gateway.rate_limit", "GATEWAY_RATE_LIMIT", "is 0", "from 1"],
        ),
        (error("", &[("TRUENOW_PARTITIONS", "1025")], &[]), &["partitions", "1025", "1024"]),
        (error("", &[("TRUENOW_SERVICES", "gateway,hottier")], &[]), &["TRUENOW_SERVICES", "hottier", "hot-tier"]),
        (error("", &[], &[("log.level", "loud")]), &["flag", "log.level", "loud", "warn"]),
        (error("", &[("TRUENOW_BIND", "0.0.0.0")], &[]), &["bind", "0.0.0.0", "TRUENOW_API_KEY"]),
        (error("", &[("TRUENOW_BIND", "localhost")], &[]), &["bind", "localhost", "127.0.0.1"]),
        (error("", &[("TRUENOW_PORT_OFFSET", "60000")], &[]), &["port", "60000", "65535"]),
        (error("[watermark]\nhttp_port = 8088", &[], &[]), &["watermark.http_port", "8088", "gateway.http_port"]),
        (
            error("[query_api]\nlimit_max = 10\nlimit_default = 11", &[], &[]),
            &["query_api.limit_default", "11", "to 10"],
        ),
        (error("[gateway]\nrequest_bytes_max = 268435457", &[], &[]), &["request_bytes_max", "268435456"]),
    ];
    for (text, parts) in cases {
        for part in *parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}

/// Goal: a key that is too weak is refused, and neither error nor dump shows one.
#[test]
fn keys_are_not_shown() {
    let weak = error("", &[("TRUENOW_API_KEY", "hunter2")], &[]);
    assert!(weak.contains("api_key") && !weak.contains("hunter2"), "{weak}");
    let config = load("bind = \"0.0.0.0\"", &[("TRUENOW_API_KEY", "0123456789abcdef")], &[]).unwrap();
    assert!(config.authenticated());
    assert_eq!(config.api_key.as_ref().unwrap().expose(), "0123456789abcdef");
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}

/// Goal: metadata lies in the data directory unless an engine is named, and an address never shows in errors or dumps.
#[test]
fn engines_are_named_by_address() {
    let config = load("data_dir = \"/d\"", &[], &[]).unwrap();
    assert_eq!((config.metadata, config.cache_url), (MetadataLocation::File("/d/metadata.db".into()), None));
    let config = load("[metadata]\nurl = \"sqlite:/m.db\"", &[], &[]).unwrap();
    assert_eq!(config.metadata, MetadataLocation::File("/m.db".into()));
    let (postgres, redis) = ("postgres://u:hunter2@h/d", "redis://:hunter2@h:1/0");
    let variables = [("TRUENOW_METADATA_URL", postgres), ("TRUENOW_QUERY_API_CACHE_URL", redis)];
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.metadata, MetadataLocation::Postgres(Secret::new(postgres.into())));
    assert_eq!(config.cache_url, Some(Secret::new(redis.into())));
    assert!(!format!("{config:?}").contains("hunter2"));
    for (variable, key) in
        [("TRUENOW_METADATA_URL", "metadata.url"), ("TRUENOW_QUERY_API_CACHE_URL", "query_api.cache_url")]
    {
        for wrong in ["mysql://u:hunter2@h/d", "hunter2", "sqlite:"] {
            let error = error("", &[(variable, wrong)], &[]);
            assert!(error.contains(key) && !error.contains("hunter2"), "{error}");
        }
    }
}

/// Goal: an offset moves every port but those that the system chooses.
#[test]
fn one_offset_moves_all_ports() {
    let config = load("port_offset = 1000\n[gateway]\nhttp_port = 0\n[watermark]\nhttp_port = 0", &[], &[]).unwrap();
    assert_eq!(config.addresses(ServiceName::Gateway).http.port(), 0);
    assert_eq!(config.addresses(ServiceName::Gateway).grpc.port(), 10_088);
    assert_eq!(config.addresses(ServiceName::ControlPlane).http.port(), 9_001);
}

/// Goal: a named file must exist, the default one need not, and the variable names it as well.
#[test]
fn the_named_file_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.toml");
    let missing = Sources::read(Some(&path), [], []).unwrap_err();
    assert!(missing.to_string().contains("other.toml"), "{missing}");
    std::fs::write(&path, "partitions = 9").unwrap();
    let variable = ("TRUENOW_CONFIG".to_owned(), path.to_str().unwrap().to_owned());
    for sources in [Sources::read(Some(&path), [], []), Sources::read(None, [variable], [])] {
        assert_eq!(sources.unwrap().into_config(&MACHINE).unwrap().partitions, 9);
    }
}

/// Goal: the documentation lists exactly the settings that there are, each with its variable.
#[test]
fn every_setting_is_documented() {
    let page = include_str!("../../../docs/configuration.md");
    let documented: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().trim_matches('`'));
            Some((cells.next()?, cells.next()?))
        })
        .collect();
    let known: Vec<(String, String)> = keys().map(|key| (key.path(), key.variable())).collect();
    let known: Vec<(&str, &str)> = known.iter().map(|(path, variable)| (path.as_str(), variable.as_str())).collect();
    assert_eq!(documented, known);
}

/// Goal: what deploy/compose.yaml sets are settings, and each of its processes is accepted with them.
#[test]
fn composed_processes_are_configured() {
    let compose = include_str!("../../../deploy/compose.yaml");
    let value = |text: &str| match text.split_once("${") {
        // A variable of whoever starts it: its default, or a secret.
        Some((before, rest)) => {
            let (variable, after) = rest.split_once('}').unwrap();
            format!("{before}{}{after}", variable.split_once(":-").map_or(KEY, |(_, default)| default))
        }
        None => text.trim_matches('"').to_owned(),
    };
    let setting = |text: &str| {
        let (name, text) = text.trim().split_once(": ").unwrap();
        (name.to_owned(), value(text))
    };
    let (_, shared) = compose.split_once("x-environment: &environment\n").unwrap();
    let shared: Vec<_> = shared.lines().take_while(|line| !line.is_empty()).map(setting).collect();
    let mut nodes = 0;
    for own in compose.lines().filter_map(|line| line.trim().strip_prefix("environment: { <<: *environment, ")) {
        let own: Vec<_> = own.trim_end_matches(" }").split(", ").map(setting).collect();
        let is_node = own.iter().any(|(name, _)| name == "TRUENOW_CLUSTER_NODE_ID");
        nodes += u32::from(is_node);
        let services = if is_node { "hot-tier,stream-ingester" } else { "gateway" };
        let all: Vec<_> = shared.iter().chain(&own).map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let config = load("", &all, &[("services", services)]).unwrap();
        assert!(config.kafka.is_some() && config.cluster.is_some(), "{own:?}");
    }
    assert_eq!(nodes, 3);
}

/// Goal: naming brokers puts the log on Kafka; a section within a section is set from every source, and what cannot hold together is
/// refused by name.
#[test]
fn brokers_put_the_log_on_kafka() {
    assert_eq!(load("", &[], &[]).unwrap().kafka, None);
    let file = "[event_log]\nqueue_bytes = 1048576\n[event_log.kafka]\nbrokers = \"a:1\"\nreplication = 3\n";
    let environment = [("TRUENOW_EVENT_LOG_KAFKA_TOPIC", "events"), ("TRUENOW_EVENT_LOG_KAFKA_LINGER_US", "0")];
    let config = load(file, &environment, &[("event_log.kafka.compression", "zstd")]).unwrap();
    assert_eq!(config.event_log.queue_bytes, 1 << 20);
    let kafka = config.kafka.unwrap();
    assert_eq!((&*kafka.brokers, &*kafka.topic, kafka.linger), ("a:1", "events", Duration::ZERO));
    assert_eq!((kafka.replication, kafka.min_insync, kafka.compression), (3, 2, config::Compression::Zstd));
    let with = |key: &str, value: &str| error("", &[], &[("event_log.kafka.brokers", "a:1"), (key, value)]);
    assert!(with("event_log.kafka.min_insync", "2").contains("must be from 1 to the 1"));
    assert!(with("event_log.kafka.topic", "a b").contains("event_log.kafka.topic"));
    assert!(kafka.delete_released);
    let member = [("services", "gateway"), ("cluster_key", KEY), ("cluster.control_plane", "a:1")];
    let member = [member.as_slice(), &[("event_log.kafka.brokers", "a:1")]].concat();
    assert!(!load("", &[], &member).unwrap().kafka.unwrap().delete_released, "others read it");
    let refused = [member.as_slice(), &[("event_log.kafka.delete_released", "true")]].concat();
    assert!(error("", &[], &refused).contains("must be false in a cluster"));
    assert!(error("[event_log.kafka]\nbroker = 1\n", &[], &[]).contains("event_log.kafka.brokers"));
}

use super::*;

fn service() -> ServiceObject {
    let service = json!({"metadata": {"name": "pg-rw", "uid": "s-1"}, "spec": {"ports": [
        {"name": "postgres", "port": 5432, "targetPort": "postgres"}, {"name": "rest", "port": 80, "targetPort": 8008},
    ]}});
    serde_json::from_value(service).expect("a Service")
}

fn pod(name: &str, addresses: &[&str]) -> PodObject {
    let ips: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    let ports = json!([{"name": "postgres", "containerPort": 5433}]);
    let pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid of {name}")},
        "spec": {"containers": [{"name": "matriarch", "ports": ports}]},
        "status": {"podIPs": ips, "podIP": addresses.first()},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn made(pod: &PodObject, family: Family, term: i64) -> EndpointSlice {
    match lead(None, (&service(), pod, family), Term(term)) {
        Ok(Some(SliceWrite::Create(slice))) => *slice,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slice_belongs_to_the_service_and_routes_to_the_pods_port() {
    let slice = made(&pod("pg-0", &["10.0.0.1", "fd00::1"]), Family::V4, 5);
    let json = serde_json::to_value(&slice).expect("it can be written");
    assert_eq!(json["metadata"]["name"], "pg-rw-ipv4");
    assert_eq!(json["addressType"], "IPv4");
    assert_eq!(json["metadata"]["ownerReferences"][0]["uid"], "s-1");
    assert_eq!(json["metadata"]["annotations"][TERM], "5");
    assert_eq!(json["endpoints"][0]["addresses"], json!(["10.0.0.1"]));
    assert_eq!(json["endpoints"][0]["targetRef"]["uid"], "uid of pg-0");
    let ports: Vec<_> = slice.ports.iter().flatten().map(|port| (port.name.as_deref(), port.port)).collect();
    assert_eq!(ports, [(Some("postgres"), Some(5433)), (Some("rest"), Some(8008))]);
    assert!(is_mine(&slice, "pg-rw") && !is_mine(&slice, "pg-ro"));
    let mut other = slice;
    other.metadata.labels.as_mut().expect("labelled").insert(MANAGED_BY.to_owned(), "somebody".to_owned());
    assert!(!is_mine(&other, "pg-rw"));
}

#[test]
fn each_family_has_its_own_slice_where_the_pod_has_an_address() {
    let (both, old) = (pod("pg-0", &["10.0.0.1", "fd00::1"]), pod("pg-1", &["10.0.0.2"]));
    let six = made(&both, Family::V6, 5);
    assert_eq!(six.metadata.name.as_deref(), Some("pg-rw-ipv6"));
    assert_eq!(six.endpoints.as_ref().expect("one")[0].addresses, ["fd00::1"]);
    assert_eq!(lead(None, (&service(), &old, Family::V6), Term(6)), Ok(None));
    let Ok(Some(SliceWrite::Patch(patch))) = lead(Some(&six), (&service(), &old, Family::V6), Term(6)) else {
        panic!("the address of the former leader stays");
    };
    assert_eq!(patch["endpoints"], json!([]));
}

#[test]
fn one_conditional_write_replaces_the_former_leader() {
    let (old, new) = (pod("pg-0", &["10.0.0.1"]), pod("pg-1", &["10.0.0.2"]));
    let mut slice = made(&old, Family::V4, 5);
    slice.metadata.resource_version = Some("71".to_owned());
    assert_eq!(lead(Some(&slice), (&service(), &old, Family::V4), Term(5)), Ok(None), "it says so already");
    let Ok(Some(SliceWrite::Patch(patch))) = lead(Some(&slice), (&service(), &new, Family::V4), Term(6))
    else {
        panic!("nothing is written");
    };
    assert_eq!(patch["metadata"]["resourceVersion"], "71");
    assert_eq!(patch["metadata"]["annotations"][TERM], "6");
    assert_eq!(patch["endpoints"].as_array().map(Vec::len), Some(1));
    assert_eq!(patch["endpoints"][0]["addresses"], json!(["10.0.0.2"]));
}

#[test]
fn a_leaving_member_removes_only_its_own_address() {
    let (old, new) = (pod("pg-0", &["10.0.0.1"]), pod("pg-1", &["10.0.0.2"]));
    let slice = made(&old, Family::V4, 5);
    assert_eq!(leave(&slice, &new), None);
    assert_eq!(leave(&slice, &old).expect("it is in it")["endpoints"], json!([]));
    let anew = pod("pg-0-anew", &["10.0.0.1"]);
    assert!(leads_to(&slice, &anew), "a new pod that was given the address of a former one");
}

#[test]
fn a_port_that_the_pod_lacks_is_named() {
    let mut service = service();
    let ports = service.spec.as_mut().and_then(|spec| spec.ports.as_mut()).expect("two");
    ports[1].target_port = Some(IntOrString::String("http".to_owned()));
    let said = lead(None, (&service, &pod("pg-0", &["10.0.0.1"]), Family::V4), Term(5));
    assert_eq!(said, Err("a port of the Service pg-rw leads to `http`: the pod has none such".to_owned()));
}

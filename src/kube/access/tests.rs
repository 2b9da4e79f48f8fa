//! Kubeconfigs as they are found, and what is made of them.

use super::*;

fn access(text: &str, context: Option<&str>) -> Result<Access, String> {
    let kubeconfig: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    kubeconfig.access(context, Path::new("/etc/kube"), None)
}

fn with_user(user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: one\npreferences: {{}}\n\
         contexts: [{{name: one, context: {{cluster: c, user: u, namespace: db}}}}, \
                    {{name: two, context: {{cluster: d, user: \"\"}}}}, {{name: lost, context: {{cluster: x}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'http://10.0.0.1:8080/k8s/'}}}}, \
                    {{name: d, cluster: {{server: 'https://[fd00::1]:6443', insecure-skip-tls-verify: true, \
                                          tls-server-name: kubernetes.default}}}}]\n\
         users: [{{name: u, user: {user}}}]\n"
    )
}

fn authorization(user: &str) -> String {
    match access(&with_user(user), None).map(|access| access.authorization) {
        Ok(Authorization::None) => "none".to_owned(),
        Ok(Authorization::Header(header)) => header,
        Ok(Authorization::TokenFile(path)) => path.display().to_string(),
        Err(why) => why,
    }
}

#[test]
fn a_user_comes_in_by_what_the_kubeconfig_holds() {
    assert_eq!(authorization("{token: abc, tokenFile: token}"), "Bearer abc");
    assert_eq!(authorization("{tokenFile: token}"), "/etc/kube/token");
    assert_eq!(authorization("{tokenFile: /run/token}"), "/run/token");
    assert_eq!(authorization("{username: me, password: secret}"), "Basic bWU6c2VjcmV0");
    assert_eq!(authorization("{}"), "none");
    for unsupported in ["{exec: {command: aws}}", "{auth-provider: {name: gcp}}", "{token: a, as: somebody}"]
    {
        assert!(authorization(unsupported).contains("not supported"), "{unsupported}");
    }
    assert!(authorization("{client-certificate-data: eA==}").contains("come together"));
    assert!(authorization("{client-certificate: c.pem, client-key: k.pem}").contains("/etc/kube/c.pem"));
}

#[test]
fn a_context_leads_to_its_cluster() {
    let one = access(&with_user("{}"), None).expect("the current context");
    assert_eq!((one.server.to_string().as_str(), one.server_name), ("http://10.0.0.1:8080/k8s/", None));
    let two = access(&with_user("{}"), Some("two")).expect("another context");
    assert_eq!(two.server.to_string(), "https://[fd00::1]:6443/");
    assert_eq!(two.server_name, ServerName::try_from("kubernetes.default").ok());
    let why = |context| access(&with_user("{}"), Some(context)).err();
    assert_eq!(why("lost").as_deref(), Some("it has no cluster x"));
    assert_eq!(why("none").as_deref(), Some("it has no context none"));
    assert_eq!(access("users: null\n", None).err().as_deref(), Some("it has no current context"));
}

#[test]
fn certificates_are_those_of_the_kubeconfig() {
    let cluster = |more: &str| {
        let text = with_user("{}").replace("server: 'http://10.0.0.1:8080/k8s/'", more);
        access(&text, None).err().unwrap_or_default()
    };
    let why = cluster("server: 'https://a', certificate-authority: ca.pem");
    assert!(why.starts_with("/etc/kube/ca.pem: "), "{why}");
    let why = cluster("server: 'https://a', certificate-authority-data: eA==");
    assert!(why.contains("holds no certificate"), "{why}");
    let why = cluster("server: 'https://a', proxy-url: 'http://proxy'");
    assert!(why.contains("not supported"), "{why}");
    assert!(cluster("server: 'ftp://a'").contains("no URL"));
}

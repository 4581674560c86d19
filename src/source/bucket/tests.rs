use super::credentials::{Settings, store};
use super::*;
use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, ObjectStore as _};
use std::sync::{Arc, Mutex};

/// Answers everything with the same bytes, and notes who was asked: address and `Authorization`.
#[derive(Debug, Clone, Default)]
struct Listener(Arc<Mutex<Vec<(String, String)>>>);

impl HttpConnector for Listener {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Listener {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let authorization = request.headers().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        self.0.lock().unwrap().push((request.uri().to_string(), authorization.unwrap_or_default()));
        let mut response = HttpResponse::new(HttpResponseBody::from("content".to_owned()));
        for (name, value) in
            [("etag", "\"1\""), ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT"), ("content-length", "7")]
        {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        Ok(response)
    }
}

/// Where an object is asked for, and with what.
async fn asked(url: &str, vars: &[(&str, &str)]) -> std::result::Result<(String, String), String> {
    let url = ObjectUrl::parse(url).unwrap().unwrap();
    let settings = Settings::new(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()));
    let listener = Listener::default();
    let store = store(&url, &settings, &listener)?;
    let found = store.get_opts(&Path::parse(&url.key).unwrap(), GetOptions::default()).await.unwrap();
    assert_eq!(found.bytes().await.unwrap(), "content");
    let asked = listener.0.lock().unwrap().last().cloned();
    Ok(asked.unwrap())
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "hush")];

#[tokio::test]
async fn where_amazons_buckets_are() {
    for (bucket, vars, want) in [
        ("pot", &[][..], "https://pot.s3.us-east-1.amazonaws.com/k"),
        ("pot", &[("AWS_REGION", "eu-west-1")], "https://pot.s3.eu-west-1.amazonaws.com/k"),
        ("pot", &[("AWS_DEFAULT_REGION", "eu-west-1")], "https://pot.s3.eu-west-1.amazonaws.com/k"),
        ("pot", &[("AWS_REGION", "cn-north-1")], "https://pot.s3.cn-north-1.amazonaws.com.cn/k"),
        ("my.pot", &[], "https://s3.us-east-1.amazonaws.com/my.pot/k"),
        ("pot", &[("S3_FORCE_PATH_STYLE", "true")], "https://s3.us-east-1.amazonaws.com/pot/k"),
        ("pot", &[("S3_ENDPOINT", "https://s.example:9000")], "https://pot.s.example:9000/k"),
        ("pot", &[("S3_ENDPOINT", "s.example"), ("S3_FORCE_PATH_STYLE", "true")], "https://s.example/pot/k"),
        ("pot", &[("S3_ENDPOINT", "http://127.0.0.1:9000/")], "http://127.0.0.1:9000/pot/k"),
        ("pot", &[("S3_ENDPOINT", "http://[::1]:9000")], "http://[::1]:9000/pot/k"),
        ("pot", &[("AWS_ENDPOINT_URL", "http://localhost:1")], "http://localhost:1/pot/k"),
        ("pot", &[("AWS_ENDPOINT_URL", "http://x"), ("S3_ENDPOINT", "https://y.z/s3")], "https://y.z/s3/pot/k"),
    ] {
        let vars = [&KEYS[..], vars].concat();
        let (address, authorization) = asked(&format!("s3://{bucket}/k"), &vars).await.unwrap();
        assert_eq!(address, want, "{vars:?}");
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIA/") && !authorization.contains("hush"));
    }
}

#[tokio::test]
async fn azures_objects_are_asked_for_with_the_accounts_key() {
    let url = "https://me.blob.core.windows.net/pot/dir/c.tar.gz";
    let (address, authorization) = asked(url, &[("AZURE_STORAGE_ACCESS_KEY", "aHVzaA==")]).await.unwrap();
    assert_eq!(address, url);
    assert!(authorization.starts_with("SharedKey me:") && !authorization.contains("aHVzaA"), "{authorization}");
    let (address, authorization) = asked(url, &[("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=s")]).await.unwrap();
    assert_eq!((address.as_str(), authorization.as_str()), (&*format!("{url}?sv=1&sig=s"), ""));
    let china = "https://me.blob.core.chinacloudapi.cn/pot/k";
    assert_eq!(asked(china, &[("AZURE_STORAGE_ACCESS_KEY", "aHVzaA==")]).await.unwrap().0, china);
    let said = asked(url, &[("AZURE_STORAGE_ACCESS_KEY", "hush!hush")]).await.unwrap_err();
    assert!(said.contains("can't be used") && !said.contains("hush"), "{said}");
    let has = |name: &'static str| has_azure_credentials(&move |n| (n == name).then(|| "x".to_owned()));
    assert!(has("AZURE_STORAGE_ACCESS_KEY") && !has("AZURE_STORAGE_ACCOUNT") && !has("AWS_ACCESS_KEY_ID"));
}

#[tokio::test]
async fn a_service_account_signs_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (key, file) = (dir.path().join("key"), dir.path().join("account.json"));
    let args = ["-q", "-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "", "-f"];
    let made = std::process::Command::new("ssh-keygen").args(args).arg(&key).output();
    if made.is_err() {
        #[allow(clippy::print_stdout)]
        {
            println!("skipped: ssh-keygen is not installed (apt-get install openssh-client)");
        }
        return;
    }
    let pem = std::fs::read_to_string(key).unwrap();
    let mut account = serde_json::json!({
        "type": "service_account", "private_key": pem, "private_key_id": "i", "client_email": "me@example.org",
    });
    std::fs::write(&file, account.to_string()).unwrap();
    let path = file.display().to_string();
    let vars = [("GOOGLE_APPLICATION_CREDENTIALS", path.as_str())];
    let (address, authorization) = asked("gs://pot/k", &vars).await.unwrap();
    assert_eq!(address, "https://storage.googleapis.com/pot/k");
    assert!(authorization.starts_with("Bearer eyJ"), "{authorization}");
    account["type"] = "external_account".into();
    std::fs::write(&file, account.to_string()).unwrap();
    let said = asked("gs://pot/k", &vars).await.unwrap_err();
    assert!(said.contains("external_account") && !said.contains("PRIVATE"), "{said}");
}

#[tokio::test]
async fn half_a_key_is_told_without_it() {
    let said = asked("s3://pot/k", &KEYS[1..]).await.unwrap_err();
    assert!(!said.contains("hush"), "{said}");
    let settings = Settings::new(&|name| (name == "S3_ENDPOINT").then(|| "https://x?hush".to_owned()));
    let client = Client::new(crate::registry::Config::default());
    let buckets = Buckets { client, settings };
    assert!(!format!("{buckets:?}").contains("hush"));
}

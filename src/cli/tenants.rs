//! `veriscope tenants`: who may use a service, and with which keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};

use super::{EXIT_OK, fail, print};
use crate::serve::store::{ApiKey, Scope, Store, Tenant};

/// How long a server may take to delete what a removed tenant had, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Say who may use the service of a data folder: tenants, their limits and their API keys
///
/// Works beside a running server, which takes changes up within two seconds.
#[derive(Debug, Args)]
pub struct TenantsArgs {
    /// The service's data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the tenants, one JSON object a line
    List,
    /// Make a tenant, or change what is given
    Set(Box<SetArgs>),
    /// Remove a tenant with its keys, its jobs (those at work are cancelled), media, previews,
    /// reports and webhook deliveries. The audit log stays for its time
    Remove {
        #[arg(value_name = "TENANT")]
        tenant: String,
    },
    /// Print a tenant's keys, one JSON object a line; the keys themselves are kept nowhere
    Keys {
        #[arg(value_name = "TENANT")]
        tenant: String,
    },
    /// Make a key and print it; it is not shown again
    AddKey {
        #[arg(value_name = "TENANT")]
        tenant: String,
        /// What it is called in the audit log
        #[arg(value_name = "NAME")]
        name: String,
        /// What it may be used for, with commas between
        #[arg(long, value_delimiter = ',', default_value = "submit,read,review", value_parser = scope_parser(), value_name = "LIST")]
        scopes: Vec<Scope>,
    },
    /// Make a key worthless
    RevokeKey {
        #[arg(value_name = "TENANT")]
        tenant: String,
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit
    #[arg(value_name = "TENANT")]
    tenant: String,
    /// Where outcomes are sent; empty for nowhere. The first time a secret is made and printed
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Make a new secret that webhooks are signed with, and print it
    #[arg(long)]
    new_webhook_secret: bool,
    /// Submissions and other changes a minute and key; reads may come ten times as often
    #[arg(long, value_name = "N")]
    rate_per_minute: Option<u32>,
    /// Jobs of the tenant that may wait
    #[arg(long, value_name = "N")]
    max_queued: Option<usize>,
    /// Bytes of one media
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<u64>,
    /// Seconds of one media
    #[arg(long, value_name = "SECONDS")]
    max_duration: Option<u64>,
    /// Pixels of one picture
    #[arg(long, value_name = "PIXELS")]
    max_pixels: Option<u64>,
    /// Seconds that media are kept after they were judged; 0: not at all
    #[arg(long, value_name = "SECONDS")]
    keep_media: Option<u64>,
    /// Days that jobs and reports are kept
    #[arg(long, value_name = "DAYS")]
    keep_reports: Option<u32>,
    /// A folder on the server whose files may be submitted by path; may be given several times, and
    /// takes the place of those before
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<PathBuf>,
}

fn scope_parser() -> impl clap::builder::TypedValueParser<Value = Scope> {
    let parse = |name: String| serde_json::from_value::<Scope>(name.into());
    PossibleValuesParser::new(["submit", "read", "review", "admin"]).try_map(parse)
}

/// Does it and gives the exit code.
pub fn run(args: TenantsArgs) -> u8 {
    match tenants(args) {
        Ok(text) => print(&text, EXIT_OK),
        Err(message) => fail(&message),
    }
}

fn tenants(args: TenantsArgs) -> Result<String, String> {
    let store = Store::open_admin(&args.data).map_err(|e| e.to_string())?;
    match args.command {
        Command::List => {
            let all = store.tenants().map_err(|e| e.to_string())?;
            // Secrets are not for screens.
            lines(all.into_iter().map(|tenant| Tenant { webhook_secret: None, ..tenant }))
        }
        Command::Set(args) => set(&store, *args),
        Command::Remove { tenant } => remove(&store, &tenant),
        Command::Keys { tenant } => {
            known(&store, &tenant)?;
            lines(store.keys(&tenant).map_err(|e| e.to_string())?)
        }
        Command::AddKey { tenant, name, scopes } => {
            let scopes: BTreeSet<Scope> = scopes.into_iter().collect();
            let (_, key) =
                store.add_key(&tenant, &name, &scopes).wait().map_err(|e| e.to_string())?;
            Ok(format!("{key}\n"))
        }
        Command::RevokeKey { tenant, name } => {
            known(&store, &tenant)?;
            let keys = store.keys(&tenant).map_err(|e| e.to_string())?;
            let good = |key: &&ApiKey| key.name == name && key.revoked.is_none();
            let key = keys.iter().find(good);
            let key = key.ok_or_else(|| format!("tenant {tenant} has no valid key {name}"))?;
            store.revoke_key(&tenant, key.id).wait().map_err(|e| e.to_string())?;
            Ok(String::new())
        }
    }
}

fn known(store: &Store, tenant: &str) -> Result<Tenant, String> {
    let found = store.tenant(tenant).map_err(|e| e.to_string())?;
    found.ok_or_else(|| format!("there is no tenant {tenant}"))
}

fn set(store: &Store, args: SetArgs) -> Result<String, String> {
    let found = store.tenant(&args.tenant).map_err(|e| e.to_string())?;
    let mut tenant = found.unwrap_or_else(|| Tenant::named(&args.tenant));
    let mut told = String::new();
    if let Some(url) = args.webhook_url {
        tenant.webhook_url = (!url.is_empty()).then_some(url);
    }
    let needed = tenant.webhook_url.is_some() && tenant.webhook_secret.is_none();
    if args.new_webhook_secret || needed {
        let secret = secret()?;
        told = format!("{secret}\n");
        tenant.webhook_secret = Some(secret);
    }
    replace(&mut tenant.rate_per_minute, args.rate_per_minute);
    replace(&mut tenant.max_queued, args.max_queued);
    replace(&mut tenant.max_bytes, args.max_bytes);
    replace(&mut tenant.max_duration_s, args.max_duration);
    replace(&mut tenant.max_pixels, args.max_pixels);
    replace(&mut tenant.keep_media_s, args.keep_media);
    replace(&mut tenant.keep_reports_days, args.keep_reports);
    if !args.allow_path.is_empty() {
        let folders = args.allow_path.iter().map(|folder| real_folder(folder));
        tenant.allowed_paths = folders.collect::<Result<_, _>>()?;
    }
    store.put_tenant(tenant).wait().map_err(|e| e.to_string())?;
    Ok(told)
}

/// Where a server works in the folder it deletes what the tenant had: it may be at work on it.
fn remove(store: &Store, tenant: &str) -> Result<String, String> {
    let removed = store.remove_tenant(tenant).wait().map_err(|e| e.to_string())?;
    // One whose removal was broken off is gone on with.
    if !removed && !store.leaves_anything(tenant).map_err(|e| e.to_string())? {
        return Err(format!("there is no tenant {tenant}"));
    }
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(_lock) = store.lock_out().map_err(|e| e.to_string())? {
            store.purge(tenant, |_| {}).map_err(|e| e.to_string())?;
            return Ok(String::new());
        }
        if !store.leaves_anything(tenant).map_err(|e| e.to_string())? {
            return Ok(String::new());
        }
        if Instant::now() > until {
            return Err(format!(
                "tenant {tenant} is removed and its keys are worthless; the server has not deleted all \
                 that it had within {} s, and goes on",
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(LOOK);
    }
}

fn replace<T>(value: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *value = new;
    }
}

fn real_folder(folder: &Path) -> Result<String, String> {
    let name = folder.display();
    let real = folder.canonicalize().map_err(|e| format!("--allow-path {name}: {e}"))?;
    if !real.is_dir() {
        return Err(format!("--allow-path {name}: not a folder"));
    }
    let text = real.into_os_string().into_string();
    text.map_err(|_| format!("--allow-path {name}: its name is not UTF-8"))
}

/// 32 random bytes in hex.
fn secret() -> Result<String, String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn lines<T: serde::Serialize>(all: impl IntoIterator<Item = T>) -> Result<String, String> {
    all.into_iter()
        .map(|one| serde_json::to_string(&one).map(|line| line + "\n").map_err(|e| e.to_string()))
        .collect()
}

//! `kiln login` and `kiln logout`.

use crate::cli::Env;
use crate::cli::progress::Style;
use crate::cli::request::{LoginRequest, PasswordFrom};
use crate::cli::session::{Failure, Session, cannot, failure};
use crate::registry::{Config, Credential, Kept, LoginFile, Secret};
use crate::report::{Event, Kind, Problem};
use rustix::termios::{LocalModes, OptionalActions, Termios};
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The longest password that is read from standard input, in bytes: some are tokens.
const LONGEST: u64 = 64 << 10;

/// Asks the registry whether it takes the credential, and keeps it then.
pub fn login(request: &LoginRequest, store: &Path, env: &Env) -> Result<String, Failure> {
    let path = config(env)?;
    // Before anybody types a password in vain.
    let file = LoginFile::open(&path, &env.path()).map_err(failure)?;
    let (user, password) = credential(request)?;
    let session = Session::start(store, &request.registry, Style::Plain, None, env)?;
    session.run(async |session| {
        let verified = async {
            let credential = Credential::Basic { username: user.clone(), password: password.clone() };
            Ok(session.registry.verify(&request.host, credential).await?)
        };
        session.stoppable(verified).await?;
        if let Kept::File(path) = file.keep(&request.host, &user, &password).await? {
            let note = format!("the password is stored unencrypted in {}", path.display());
            session.reporter.send(Event::Note(format!("{note}; a credential helper keeps it better")));
        }
        Ok(())
    })?;
    Ok("Login Succeeded\n".to_owned())
}

/// Forgets a registry's credential.
pub fn logout(host: &str, store: &Path, env: &Env) -> Result<String, Failure> {
    let file = LoginFile::open(&config(env)?, &env.path()).map_err(failure)?;
    let session = Session::start(store, &crate::cli::request::RegistryRequest::default(), Style::Plain, None, env)?;
    let found = session.run(async |_| Ok(file.forget(host).await?))?;
    Ok(if found { format!("Removing login credentials for {host}\n") } else { format!("Not logged in to {host}\n") })
}

/// The path of `config.json`.
fn config(env: &Env) -> Result<PathBuf, Problem> {
    let path = Config::from_env(&|name| env.var(name).map(str::to_owned)).credentials;
    let none = || Problem::new(Kind::Usage, "neither $DOCKER_CONFIG nor $HOME says where credentials are kept");
    Ok(env.cwd.join(path.ok_or_else(none)?))
}

/// The user and the password, asked for where they weren't given.
fn credential(request: &LoginRequest) -> Result<(String, Secret), Problem> {
    if request.password == PasswordFrom::Prompt && !std::io::stdin().is_terminal() {
        return Err(Problem::new(Kind::Usage, "there is no terminal to ask for a password")
            .hint("give it with --username and --password-stdin"));
    }
    let user = match &request.username {
        Some(user) => user.clone(),
        None => ask("Username: ")?,
    };
    let password = match &request.password {
        PasswordFrom::Given(password) => password.clone(),
        PasswordFrom::Stdin => from_stdin()?,
        PasswordFrom::Prompt => ask_secretly("Password: ")?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Problem::new(Kind::Usage, "a user name and a password are needed"));
    }
    Ok((user, Secret::new(password)))
}

/// All of standard input, without its last line end.
fn from_stdin() -> Result<String, Problem> {
    let mut text = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut text).map_err(|e| cannot("read standard input", &e))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn ask(what: &str) -> Result<String, Problem> {
    prompt(what);
    let mut line = String::new();
    std::io::stdin().lock().take(LONGEST).read_line(&mut line).map_err(|e| cannot("read from the terminal", &e))?;
    Ok(line.trim().to_owned())
}

fn prompt(what: &str) {
    // A person who can't see it can still type.
    let _ = write!(std::io::stderr(), "{what}");
}

/// A line of the terminal that isn't shown.
fn ask_secretly(what: &str) -> Result<String, Problem> {
    let quiet = Quiet::new().map_err(|e| cannot("hide what is typed", &e))?;
    prompt(what);
    let mut line = Vec::new();
    for byte in std::io::stdin().lock().bytes() {
        match byte.map_err(|e| cannot("read from the terminal", &e))? {
            b'\r' | b'\n' | END_OF_INPUT => break,
            INTERRUPT => {
                drop(quiet);
                return Err(Problem::new(Kind::Cancelled, "cancelled"));
            }
            BACKSPACE | DELETE => {
                // A whole character, whatever number of bytes it has.
                while line.pop().is_some_and(|b| b & 0xc0 == 0x80) {}
            }
            KILL_LINE => line.clear(),
            other if line.len() < LONGEST as usize => line.push(other),
            _ => {}
        }
    }
    drop(quiet);
    String::from_utf8(line).map_err(|_| Problem::new(Kind::Usage, "the password is no UTF-8 text"))
}

const INTERRUPT: u8 = 3;
const END_OF_INPUT: u8 = 4;
const BACKSPACE: u8 = 8;
const KILL_LINE: u8 = 21;
const DELETE: u8 = 127;

/// The terminal passing on each key and showing none, not even for Ctrl-C, until dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> rustix::io::Result<Self> {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
        prompt("\n");
    }
}

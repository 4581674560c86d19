//! The level whose promises are tested.

use kiln::sandbox::oci::Runtime;
use kiln::sandbox::{ChrootExecutor, Executor, OciExecutor, RootExecutor};

/// `KILN_TEST_LEVEL=chroot|crun|runc` tests another level by hand; what it must show is the same.
pub(crate) fn executor(resolv_conf: String) -> Box<dyn Executor> {
    at(&std::env::var("KILN_TEST_LEVEL").unwrap_or_default(), resolv_conf)
}

/// The executor of a level; the empty name is `root`.
pub(crate) fn at(level: &str, resolv_conf: String) -> Box<dyn Executor> {
    match level {
        "" => Box::new(RootExecutor::new(resolv_conf).unwrap()),
        "chroot" => Box::new(ChrootExecutor::new(resolv_conf).unwrap()),
        name => {
            let runtime = Runtime::find(Some(name), &std::env::var_os("PATH").unwrap_or_default()).unwrap();
            Box::new(OciExecutor::new(resolv_conf, runtime, env!("CARGO_BIN_EXE_kiln").into()).unwrap())
        }
    }
}

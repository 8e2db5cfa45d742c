//! System call filters: profiles, the runtime's own one, and their translation to the kernel's filter programs.

mod bpf;
mod default;

pub use default::default_profile;

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr as _;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It runs.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It fails with an error number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// The thread is killed.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// The process is killed.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The process gets SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// A tracer decides.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// It runs and is noted in the audit log.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

impl Action {
    fn code(self, errno: u32) -> u32 {
        match self {
            Action::Allow => 0x7fff_0000,
            Action::Errno => 0x0005_0000 | (errno & 0xffff),
            Action::KillThread => 0,
            Action::KillProcess => 0x8000_0000,
            Action::Trap => 0x0003_0000,
            Action::Trace => 0x7ff0_0000 | (errno & 0xffff),
            Action::Log => 0x7ffc_0000,
        }
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Unequal.
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    /// Less.
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    /// Less or equal.
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    /// Equal.
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    /// Greater or equal.
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    /// Greater.
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// Masked with `value`, equal to `value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

/// A condition on one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    /// Which argument, from 0.
    pub index: u32,
    /// What it is compared with.
    pub value: u64,
    /// The second operand of `MaskedEq`.
    #[serde(default)]
    pub value_two: u64,
    /// The comparison.
    pub op: Op,
}

/// One rule of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The system calls it is about; names this machine does not know are passed over.
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// The error number of `Errno`; 1 (EPERM) if it is not given.
    #[serde(default)]
    pub errno_ret: Option<u32>,
    /// Conditions, all of which must hold.
    #[serde(default)]
    pub args: Option<Vec<Arg>>,
}

/// A profile in the form of the OCI runtime specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// What happens to a system call that no rule is about.
    pub default_action: Action,
    /// Its error number.
    #[serde(default)]
    pub default_errno_ret: Option<u32>,
    /// The architectures beside the machine's own whose calls the rules are about, too (`SCMP_ARCH_X86`).
    #[serde(default)]
    pub architectures: Option<Vec<String>>,
    /// Rules; the first that holds counts.
    #[serde(default)]
    pub syscalls: Option<Vec<Rule>>,
}

const EPERM: u32 = 1;

#[cfg(target_arch = "x86_64")]
mod arch {
    pub const NATIVE: u32 = 0xc000_003e;
    pub type Native = syscalls::x86_64::Sysno;
    /// The older architecture the machine also runs: its number in filters, and its name in profiles.
    pub const COMPAT: Option<(u32, &str)> = Some((0x4000_0003, "SCMP_ARCH_X86"));
    pub type Compat = syscalls::x86::Sysno;
}
#[cfg(target_arch = "aarch64")]
mod arch {
    pub const NATIVE: u32 = 0xc000_00b7;
    pub type Native = syscalls::aarch64::Sysno;
    pub const COMPAT: Option<(u32, &str)> = None;
    pub type Compat = syscalls::aarch64::Sysno;
}

impl Profile {
    /// Reads a profile's JSON.
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| Error::invalid(format!("cannot parse seccomp profile: {e}")))
    }

    /// Translates the profile for this machine.
    pub fn compile(&self) -> Result<Vec<libc::sock_filter>> {
        let default = self.default_action.code(self.default_errno_ret.unwrap_or(EPERM));
        let native = self.table(|name| arch::Native::from_str(name).ok().map(|n| n.id()))?;
        let mut tables = vec![(arch::NATIVE, native)];
        if let Some((number, name)) = arch::COMPAT
            && self.architectures.as_ref().is_some_and(|all| all.iter().any(|a| a == name))
        {
            let compat = self.table(|name| arch::Compat::from_str(name).ok().map(|n| n.id()))?;
            tables.push((number, compat));
        }
        bpf::program(&tables, default)
    }

    /// The rules by system call number, sorted.
    fn table(&self, number: impl Fn(&str) -> Option<i32>) -> Result<bpf::Table> {
        let mut table = bpf::Table::new();
        for rule in self.syscalls.iter().flatten() {
            let action = rule.action.code(rule.errno_ret.unwrap_or(EPERM));
            let args = rule.args.clone().unwrap_or_default();
            if args.iter().any(|a| a.index > 5) {
                return Err(Error::invalid("seccomp profile: a system call has 6 arguments, from 0 to 5"));
            }
            // Two conditions on one argument have always meant either of them.
            let repeated = args.iter().enumerate().any(|(i, a)| args[..i].iter().any(|b| a.index == b.index));
            let alternatives = if repeated { args.iter().map(|a| vec![a.clone()]).collect() } else { vec![args] };
            for name in &rule.names {
                let Some(n) = number(name).and_then(|n| u32::try_from(n).ok()) else { continue };
                for alternative in &alternatives {
                    table.entry(n).or_default().push((alternative.clone(), action));
                }
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests;

//! Blocks of people by an operator's order: set, listed and lifted.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EndError, Initiator, LoginFilter, Logins, MAX_LOGINS, PersonName};
use crate::oauth::blocks::{Block, PersonRef};
use crate::oauth::error::Unavailable;
use crate::store::BlockId;
use crate::telemetry::audit::{Actor, AuditEvent, AuditRecord};

/// The most blocks that are kept; every one of them is in memory.
pub(super) const MAX_BLOCKS: usize = 10_000;
const MAX_REASON_CHARS: usize = 500;

/// Whom an operator wants kept out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBlock {
    /// A user name, a verified address, an account's id, or `DIRECTORY/ID`.
    pub person: String,
    /// The tenant's name; none for all tenants.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Says that all tenants are meant, since no tenant is named.
    #[serde(default)]
    pub all_tenants: bool,
    /// The reason, for operators.
    #[serde(default)]
    pub reason: Option<String>,
    /// When the block ends by itself.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// A block with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedBlock {
    /// The id, by which it is lifted.
    pub id: String,
    /// What it says; none if it cannot be read.
    #[serde(flatten)]
    pub block: Option<Block>,
}

/// A block that was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockedPerson {
    /// The block.
    #[serde(flatten)]
    pub block: ListedBlock,
    /// How many logins ended.
    pub logins_ended: usize,
    /// What an operator should know about the way the person was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

/// Why an order to block or unblock was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The order says neither a tenant nor all of them, or both.
    #[error("say where: \"tenant\" with a name, or \"all_tenants\": true")]
    Place,
    /// The order names no person.
    #[error("\"person\" is empty: give a user name, an address or the account's object id")]
    Nobody,
    /// The end is in the past.
    #[error("\"until\" is {0}, which is in the past: nobody would be kept out")]
    Past(Timestamp),
    /// The reason is too long.
    #[error("\"reason\" has more than {MAX_REASON_CHARS} characters")]
    LongReason,
    /// Several accounts have the name.
    #[error("several accounts have this name: {0}; give the id of the one that you mean")]
    Ambiguous(String),
    /// There are too many blocks.
    #[error("there are {MAX_BLOCKS} blocks already; lift some with \"tenantd logins unblock\"")]
    TooMany,
    /// There is no block with this id.
    #[error("there is no block with this id; GET /api/blocks lists all of them")]
    Unknown,
    /// The store cannot be read, so nothing was changed.
    #[error("the gateway cannot read its store now, so nobody was blocked; see its log")]
    Unavailable,
    /// The block is in force, but the store does not know that yet.
    #[error(
        "the person is blocked, but the store cannot be written: the block is lost if the gateway restarts \
         before it can; it tries again every two seconds, see its log"
    )]
    NotStored,
    /// The block could not be deleted from the store.
    #[error("the store cannot be written, so the block stays; see the gateway's log")]
    StillBlocked,
}

impl From<Unavailable> for BlockError {
    fn from(Unavailable: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Logins {
    /// Returns all blocks, the latest first.
    pub fn blocks(&self) -> Vec<ListedBlock> {
        let (known, unreadable) = self.context.blocks.all();
        let mut all: Vec<_> = known.into_iter().map(|(id, block)| ListedBlock::new(id, &block)).collect();
        all.sort_by(|a, b| b.block.as_ref().map(|it| it.since).cmp(&a.block.as_ref().map(|it| it.since)));
        all.extend(unreadable.into_iter().map(|id| ListedBlock { id: id.to_string(), block: None }));
        all
    }

    /// Blocks a person: calls and streams in progress end, logins end, and the person's calls,
    /// renewals and logins are refused from now on. When this returns `Ok`, that is on the disk.
    ///
    /// # Errors
    /// Returns why the order is refused. With [`BlockError::NotStored`] the block is in force, and
    /// is persisted later.
    pub async fn block(&self, new: &NewBlock, by: Initiator<'_>) -> Result<BlockedPerson, BlockError> {
        let tenant = self.check(new)?;
        let person = PersonName::parse(&new.person).ok_or(BlockError::Nobody)?;
        let (since, until) = (self.context.now(), new.until);
        let reason = new.reason.clone().filter(|reason| !reason.is_empty());
        let (named, notice_without_login) = subject_without_login(&person);
        let mut block = Block { tenant: tenant.clone(), subject: named.clone(), reason, since, until };
        // Finding the account takes seconds if there are many logins. Meanwhile all accounts with
        // the name are kept out, everywhere.
        let provisional = self.context.blocks.insert_provisional(block.clone());
        self.context.end_blocked_calls(&block);
        let mut announced = None;
        if let Some(provisional) = &provisional
            && self.context.announce_block(provisional).await
        {
            announced = Some(provisional.id());
        }
        let account = match self.find_account(&person).await {
            Ok(account) => account,
            Err(refusal) => {
                drop(provisional);
                if let Some(announced) = announced {
                    self.context.withdraw_block(announced).await;
                }
                return Err(refusal);
            }
        };
        let notice = account.is_none().then_some(notice_without_login);
        block.subject = account.unwrap_or_else(|| named.clone());
        let id = self.context.blocks.insert(block.clone());
        match provisional {
            Some(provisional) if block.subject.is_same(&named) => provisional.leave(),
            provisional => drop(provisional),
        }
        self.context.end_blocked_calls(&block);
        let is_stored = self.context.persist_blocks().await;
        if let Some(announced) = announced.filter(|announced| *announced != id) {
            self.context.withdraw_block(announced).await;
        }
        self.record_block(&block, "blocked", by);
        let account = Some(block.subject.clone());
        let filter = LoginFilter { tenant, account, ..LoginFilter::default() };
        let ended = self.end(&filter, by).await;
        match (is_stored, ended) {
            (true, Ok(ended)) => {
                let block = ListedBlock::new(id, &block);
                Ok(BlockedPerson { block, logins_ended: ended.ended, notice })
            }
            // The logins may stay: none of their tokens is taken while the block is in force.
            (true, Err(EndError::Unavailable | EndError::NotStored { .. })) | (false, _) => {
                Err(BlockError::NotStored)
            }
        }
    }

    /// Lifts a block. The person logs in again.
    ///
    /// # Errors
    /// There is no such block, or the store cannot be written; then it stays.
    pub async fn unblock(&self, id: &str, by: Initiator<'_>) -> Result<Option<Block>, BlockError> {
        let blocks = &self.context.blocks;
        let id = BlockId::parse(id).filter(|id| blocks.contains(*id)).ok_or(BlockError::Unknown)?;
        let (known, _) = blocks.all();
        let deleted = self.context.delete_block(id).await;
        deleted.map_err(|Unavailable| BlockError::StillBlocked)?;
        let lifted = known.into_iter().find(|(known, _)| *known == id).map(|(_, block)| block);
        if let Some(block) = &lifted {
            self.record_block(block, "unblocked", by);
        }
        Ok(lifted.map(|block| Block::clone(&block)))
    }

    /// Records who is kept out, or no longer, and by whose order.
    fn record_block(&self, block: &Block, outcome: &str, by: Initiator<'_>) {
        let who = match &block.subject {
            PersonRef::Account { oid, tid, user } => {
                Actor { oid: Some(oid), tid: tid.as_deref(), user: user.as_deref(), label: None }
            }
            PersonRef::Name { user } => Actor { user: Some(user), ..Actor::default() },
        };
        let tenant = block.tenant.as_deref().unwrap_or_default();
        let entry = AuditRecord { who, ..AuditRecord::new(AuditEvent::Revocation, tenant, outcome) };
        self.context.audit.record(&by.sign(entry));
    }

    /// Checks what the order says besides the person. Returns the tenant, or none for all.
    fn check(&self, new: &NewBlock) -> Result<Option<Arc<str>>, BlockError> {
        let tenant = match (&new.tenant, new.all_tenants) {
            (Some(tenant), false) if !tenant.is_empty() => Some(Arc::from(tenant.as_str())),
            (None, true) => None,
            _ => return Err(BlockError::Place),
        };
        if let Some(until) = new.until.filter(|until| *until <= self.context.now()) {
            return Err(BlockError::Past(until));
        }
        if new.reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
            return Err(BlockError::LongReason);
        }
        match self.context.blocks.len() < MAX_BLOCKS {
            true => Ok(tenant),
            false => Err(BlockError::TooMany),
        }
    }

    /// Finds the account that is meant among those that have logged in.
    async fn find_account(&self, person: &PersonName) -> Result<Option<PersonRef>, BlockError> {
        let filter = LoginFilter { person: Some(person.clone()), ..LoginFilter::default() };
        let mut known: Vec<PersonRef> = Vec::new();
        for opened in self.find(&filter, None, MAX_LOGINS).await? {
            let Some(account) = opened.account() else { continue };
            let subject = PersonRef::Account {
                oid: Arc::clone(&account.subject),
                tid: Some(Arc::clone(&account.issuer)),
                user: account.username.clone(),
            };
            if !known.iter().any(|other| other.is_same(&subject)) {
                known.push(subject);
            }
        }
        if known.len() > 1 {
            let ids: Vec<_> = known.iter().map(|subject| subject.describe()).collect();
            return Err(BlockError::Ambiguous(ids.join(", ")));
        }
        Ok(known.pop())
    }
}

/// Returns whom a name means with which no login was made here.
fn subject_without_login(person: &PersonName) -> (PersonRef, &'static str) {
    if person.as_given().contains('@') {
        let notice = "nobody has logged in with this name here, so whoever has the name is kept out; names can \
                      change hands, so give the account's object id if you know it";
        return (PersonRef::Name { user: person.in_small_letters().into() }, notice);
    }
    // Object ids are UUIDs, which are written in small letters; other ids are taken as they are.
    let is_uuid =
        |text: &str| text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let (tid, oid) = match person.as_given().rsplit_once('/') {
        Some((tid, oid)) => (Some(tid), oid),
        None => (None, person.as_given()),
    };
    let spelled = |id: &str| if is_uuid(id) { id.to_lowercase().into() } else { Arc::from(id) };
    let (tid, oid) = (tid.map(spelled), spelled(oid));
    let notice = "no account with this id has a login here now; it is kept out if it comes";
    (PersonRef::Account { oid, tid, user: None }, notice)
}

impl ListedBlock {
    fn new(id: BlockId, block: &Block) -> Self {
        Self { id: id.to_string(), block: Some(block.clone()) }
    }
}

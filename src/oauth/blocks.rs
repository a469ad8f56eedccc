//! The people whom operators keep out, by account or by user name, at one tenant or at all. Held in
//! memory, as every call checks them; the store has them too, for restarts. A block that the store
//! could not take is in force all the same, and is written as soon as possible.
//!
//! A block belongs to the name of a tenant and not to one of its incarnations: a blocked person
//! stays out when a tenant is removed and added again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::Unavailable;
use crate::base::sync::lock_unpoisoned;
use crate::identity::Account;
use crate::store::{BlockId, StoredBlocks};

/// A person who is kept out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The tenant's name; none for all tenants.
    pub tenant: Option<Arc<str>>,
    /// Who is meant.
    #[serde(flatten)]
    pub subject: PersonRef,
    /// The reason, for operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was set.
    pub since: Timestamp,
    /// When it ends by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Who is meant: an account, or all accounts with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PersonRef {
    /// An account.
    Account {
        /// The account's id.
        oid: Arc<str>,
        /// Who keeps the account; none if that was unknown when the block was set, so that every
        /// account with this id is meant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tid: Option<Arc<str>>,
        /// The user name at that time, for display.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<Arc<str>>,
    },
    /// All accounts with this user name or verified address, in small letters. Names change hands.
    Name { user: Arc<str> },
}

/// The blocks in force.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    current: ArcSwap<BlockIndex>,
    changes: Mutex<BlockChanges>,
}

/// All blocks by whom they mean. It is replaced whole.
#[derive(Debug, Default, Clone)]
struct BlockIndex {
    by_id: HashMap<BlockId, Arc<Block>>,
    /// By the account's id, or by the name in small letters.
    by_subject: HashMap<Arc<str>, Vec<Arc<Block>>>,
    has_names: bool,
    /// Blocks that cannot be read, so that it is unknown whom they mean.
    unreadable: Vec<BlockId>,
}

/// A block that is in force until this is dropped.
#[derive(Debug)]
pub(super) struct ProvisionalBlock<'a> {
    blocks: &'a Blocks,
    id: BlockId,
}

impl ProvisionalBlock<'_> {
    pub(super) fn id(&self) -> BlockId {
        self.id
    }

    /// Returns what the store keeps of it.
    pub(super) fn details(&self) -> Vec<u8> {
        let index = self.blocks.current.load();
        let block = index.by_id.get(&self.id).expect("it is in force until this is dropped");
        serde_json::to_vec(&**block).expect("plain data")
    }

    /// Leaves the block in force, because another of the same person has taken its place.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for ProvisionalBlock<'_> {
    fn drop(&mut self) {
        self.blocks.remove(self.id);
    }
}

/// What the store does not have.
#[derive(Debug, Default)]
struct BlockChanges {
    /// What it does not have yet.
    unpersisted: Vec<BlockId>,
    /// What it never gets.
    provisional: Vec<BlockId>,
}

impl BlockChanges {
    /// Returns whether the store says nothing of this block.
    fn contains(&self, id: BlockId) -> bool {
        self.unpersisted.contains(&id) || self.provisional.contains(&id)
    }
}

impl Block {
    /// Whether the block keeps this account out of this tenant.
    fn applies(&self, tenant: &str, account: &Account, now: Timestamp) -> bool {
        let is_tenant = self.tenant.as_ref().is_none_or(|blocked| **blocked == *tenant);
        is_tenant && self.until.is_none_or(|until| now < until) && self.subject.matches(account)
    }
}

impl PersonRef {
    /// Whether the account is meant.
    pub(super) fn matches(&self, account: &Account) -> bool {
        match self {
            Self::Account { oid, tid, .. } => {
                *oid == account.subject && tid.as_ref().is_none_or(|tid| *tid == account.issuer)
            }
            Self::Name { user } => account_names(account).any(|name| *name == **user),
        }
    }

    /// Returns the text by which an operator would name the person.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Account { oid, tid: Some(tid), .. } => format!("{tid}/{oid}"),
            Self::Account { oid, tid: None, .. } => oid.to_string(),
            Self::Name { user } => user.to_string(),
        }
    }

    /// Refers to the account with these ids.
    pub(super) fn from_ids(tid: &Arc<str>, oid: &Arc<str>) -> Self {
        Self::Account { oid: Arc::clone(oid), tid: Some(Arc::clone(tid)), user: None }
    }

    fn key(&self) -> &Arc<str> {
        match self {
            Self::Account { oid, .. } => oid,
            Self::Name { user } => user,
        }
    }

    /// Whether both mean the same, whatever they display.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Account { oid, tid, .. }, Self::Account { oid: other, tid: of_other, .. }) => {
                (oid, tid) == (other, of_other)
            }
            _ => self == other,
        }
    }
}

/// Returns the names of an account in small letters.
fn account_names(account: &Account) -> impl Iterator<Item = String> {
    let names = [account.username.as_deref(), account.verified_email.as_deref()];
    names.into_iter().flatten().map(str::to_lowercase)
}

impl Blocks {
    pub(super) fn from_stored(stored: StoredBlocks) -> Self {
        let mut index = BlockIndex { unreadable: stored.unreadable, ..BlockIndex::default() };
        for (id, details) in stored.known {
            match serde_json::from_slice::<Block>(&details) {
                Ok(block) => drop(index.by_id.insert(id, Arc::new(block))),
                Err(_) => index.unreadable.push(id),
            }
        }
        index.sort_by_subject();
        Self { current: ArcSwap::from_pointee(index), changes: Mutex::default() }
    }

    /// Returns the block that keeps an account out of a tenant. Cheap while there are no blocks.
    ///
    /// # Errors
    /// Fails if the store has a block that cannot be read: it could mean anybody.
    pub(super) fn find(
        &self,
        tenant: &str,
        account: &Account,
        now: Timestamp,
    ) -> Result<Option<Arc<Block>>, Unavailable> {
        let index = self.current.load();
        if !index.unreadable.is_empty() {
            return Err(Unavailable);
        }
        if index.by_id.is_empty() {
            return Ok(None);
        }
        let find = |key: &str| {
            let blocks = index.by_subject.get(key)?;
            blocks.iter().find(|block| block.applies(tenant, account, now)).cloned()
        };
        let by_name = || account_names(account).find_map(|name| find(&name));
        Ok(find(&account.subject).or_else(|| if index.has_names { by_name() } else { None }))
    }

    /// Returns all blocks, and the ids of those that cannot be read.
    pub(super) fn all(&self) -> (Vec<(BlockId, Arc<Block>)>, Vec<BlockId>) {
        let index = self.current.load();
        let all = index.by_id.iter().map(|(id, block)| (*id, Arc::clone(block)));
        (all.collect(), index.unreadable.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.current.load().by_id.len()
    }

    /// Puts a block in force, in place of one of the same person at the same place. The store does
    /// not have it yet. Returns its id.
    pub(super) fn insert(&self, block: Block) -> BlockId {
        let mut changes = lock_unpoisoned(&self.changes);
        let id = self.find_same(&block).unwrap_or_else(BlockId::random);
        self.put(id, block);
        changes.provisional.retain(|provisional| *provisional != id);
        if !changes.unpersisted.contains(&id) {
            changes.unpersisted.push(id);
        }
        id
    }

    /// Puts a block in force that is never stored and ends with the returned value. Returns `None`
    /// if the person is kept out of the same place already.
    pub(super) fn insert_provisional(&self, block: Block) -> Option<ProvisionalBlock<'_>> {
        let mut changes = lock_unpoisoned(&self.changes);
        if self.find_same(&block).is_some() {
            return None;
        }
        let id = BlockId::random();
        self.put(id, block);
        changes.provisional.push(id);
        Some(ProvisionalBlock { blocks: self, id })
    }

    /// Publishes the blocks with this one. The caller holds the lock of changes.
    fn put(&self, id: BlockId, block: Block) {
        let mut index = BlockIndex::clone(&self.current.load());
        index.by_id.insert(id, Arc::new(block));
        index.sort_by_subject();
        self.current.store(Arc::new(index));
    }

    /// Returns the id of the block of the same person at the same place.
    fn find_same(&self, block: &Block) -> Option<BlockId> {
        let is_same = |known: &Block| known.tenant == block.tenant && known.subject.is_same(&block.subject);
        let index = self.current.load();
        index.by_id.iter().find(|(_, known)| is_same(known)).map(|(id, _)| *id)
    }

    /// Lifts a block. Returns whether there was one.
    pub(super) fn remove(&self, id: BlockId) -> bool {
        let mut changes = lock_unpoisoned(&self.changes);
        self.remove_locked(&mut changes, id)
    }

    /// Removes the blocks that have ended by themselves, and returns their ids.
    pub(super) fn remove_expired(&self, now: Timestamp) -> Vec<BlockId> {
        // A block that is set anew keeps its id, so finding and removing is one step.
        let mut changes = lock_unpoisoned(&self.changes);
        let index = self.current.load();
        let is_over = |block: &Block| block.until.is_some_and(|until| until <= now);
        let expired = index.by_id.iter().filter(|(_, block)| is_over(block)).map(|(id, _)| *id);
        let expired: Vec<_> = expired.collect();
        for id in &expired {
            self.remove_locked(&mut changes, *id);
        }
        expired
    }

    fn remove_locked(&self, changes: &mut BlockChanges, id: BlockId) -> bool {
        let mut index = BlockIndex::clone(&self.current.load());
        let was_unreadable = index.unreadable.contains(&id);
        index.unreadable.retain(|unreadable| *unreadable != id);
        let existed = index.by_id.remove(&id).is_some() || was_unreadable;
        index.sort_by_subject();
        self.current.store(Arc::new(index));
        changes.unpersisted.retain(|unpersisted| *unpersisted != id);
        changes.provisional.retain(|provisional| *provisional != id);
        existed
    }

    /// Takes what the store has of the `asked` blocks, or of all, as other gateways may have changed
    /// it. Returns the blocks that came into force.
    pub(super) fn adopt(&self, asked: Option<&[BlockId]>, stored: StoredBlocks) -> Vec<Arc<Block>> {
        let changes = lock_unpoisoned(&self.changes);
        let mut index = BlockIndex::clone(&self.current.load());
        let before = std::mem::take(&mut index.by_id);
        let is_asked = |id: &BlockId| asked.is_none_or(|asked| asked.contains(id)) && !changes.contains(*id);
        index.unreadable.retain(|id| !is_asked(id));
        index.by_id = before
            .iter()
            .filter(|(id, _)| !is_asked(id))
            .map(|(id, block)| (*id, Arc::clone(block)))
            .collect();
        let mut new = Vec::new();
        index.unreadable.extend(stored.unreadable.into_iter().filter(is_asked));
        for (id, details) in stored.known.into_iter().filter(|(id, _)| is_asked(id)) {
            let Ok(block) = serde_json::from_slice::<Block>(&details) else {
                index.unreadable.push(id);
                continue;
            };
            let block = Arc::new(block);
            if before.get(&id).is_none_or(|known| **known != *block) {
                new.push(Arc::clone(&block));
            }
            index.by_id.insert(id, block);
        }
        index.sort_by_subject();
        self.current.store(Arc::new(index));
        new
    }

    pub(super) fn contains(&self, id: BlockId) -> bool {
        let index = self.current.load();
        index.by_id.contains_key(&id) || index.unreadable.contains(&id)
    }

    /// Returns the blocks that the store does not have yet.
    pub(super) fn unpersisted(&self) -> Vec<(BlockId, Arc<Block>)> {
        let (changes, index) = (lock_unpoisoned(&self.changes), self.current.load());
        let block = |id: &BlockId| Some((*id, Arc::clone(index.by_id.get(id)?)));
        changes.unpersisted.iter().filter_map(block).collect()
    }

    /// Records that the store has this block, unless it was replaced meanwhile.
    pub(super) fn mark_persisted(&self, id: BlockId, stored: &Arc<Block>) {
        let mut changes = lock_unpoisoned(&self.changes);
        if self.current.load().by_id.get(&id).is_some_and(|block| Arc::ptr_eq(block, stored)) {
            changes.unpersisted.retain(|unpersisted| *unpersisted != id);
        }
    }
}

impl BlockIndex {
    fn sort_by_subject(&mut self) {
        self.by_subject.clear();
        for block in self.by_id.values() {
            self.by_subject.entry(Arc::clone(block.subject.key())).or_default().push(Arc::clone(block));
        }
        self.has_names = self.by_id.values().any(|block| matches!(block.subject, PersonRef::Name { .. }));
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::super::testkit::ada;
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn block(tenant: Option<&str>, subject: PersonRef, until: Option<Timestamp>) -> Block {
        Block { tenant: tenant.map(Into::into), subject, reason: None, since: NOW, until }
    }

    fn account(tid: Option<Arc<str>>) -> PersonRef {
        PersonRef::Account { oid: ada().subject, tid, user: None }
    }

    #[test]
    fn a_block_keeps_out_whom_it_means_where_it_means_and_as_long() {
        let name = |user: &str| PersonRef::Name { user: user.into() };
        let mailed = Account { verified_email: Some("Ada@Example.com".into()), ..ada() };
        for (is_out, ada, subject, tenant, until) in [
            (true, ada(), account(None), None, None),
            (true, ada(), account(Some(ada().issuer)), Some("acme"), None),
            (true, ada(), account(None), None, Some(NOW + 1.second())),
            (true, ada(), name("ada@contoso.com"), None, None),
            (true, mailed, name("ada@example.com"), None, None),
            (false, ada(), account(Some("another".into())), None, None),
            (false, ada(), account(None), Some("beta"), None),
            (false, ada(), account(None), None, Some(NOW)),
            (false, ada(), name("ada@example.com"), None, None),
            (false, Account { username: None, ..ada() }, name("ada@contoso.com"), None, None),
        ] {
            let blocks = Blocks::default();
            let id = blocks.insert(block(tenant, subject.clone(), until));
            let found = blocks.find("acme", &ada, NOW).expect("readable");
            assert_eq!(found.is_some(), is_out, "{subject:?} {tenant:?} {until:?}");
            assert!(blocks.remove(id) && !blocks.remove(id));
            assert_eq!(blocks.find("acme", &ada, NOW), Ok(None));
        }
    }

    #[test]
    fn another_block_of_the_same_person_at_the_same_place_replaces_the_first() {
        let blocks = Blocks::default();
        let first = blocks.insert(block(None, account(None), Some(NOW)));
        let here = blocks.insert(block(Some("acme"), account(None), None));
        assert_eq!(blocks.insert(block(None, account(None), None)), first);
        assert!(here != first && blocks.len() == 2);
        let stored = blocks.unpersisted();
        assert_eq!(stored.len(), 2);
        for (id, block) in &stored {
            blocks.mark_persisted(*id, block);
        }
        assert!(blocks.unpersisted().is_empty());
        blocks.insert(block(None, account(None), Some(NOW)));
        blocks.mark_persisted(first, &stored[0].1);
        assert_eq!(blocks.unpersisted().len(), 1, "what was stored is another one");
    }

    #[test]
    fn only_blocks_that_have_ended_expire() {
        let blocks = Blocks::default();
        let over = blocks.insert(block(None, account(None), Some(NOW)));
        let later = blocks.insert(block(Some("acme"), account(None), Some(NOW + 1.second())));
        let open_ended = blocks.insert(block(Some("beta"), account(None), None));
        assert_eq!(blocks.remove_expired(NOW), [over]);
        assert!(!blocks.contains(over) && blocks.contains(later) && blocks.contains(open_ended));
        assert_eq!(blocks.unpersisted().len(), 2, "what is over is not stored any more");
        assert_eq!(blocks.remove_expired(NOW), []);
    }

    #[test]
    fn a_provisional_block_is_never_stored_and_lifts_no_other() {
        let blocks = Blocks::default();
        let is_out = || blocks.find("acme", &ada(), NOW).expect("readable").is_some();
        let provisional = blocks.insert_provisional(block(None, account(None), None)).expect("the first");
        assert!(is_out() && blocks.unpersisted().is_empty());
        drop(provisional);
        assert!(!is_out());
        blocks.insert(block(None, account(None), None));
        assert!(blocks.insert_provisional(block(None, account(None), None)).is_none());
        assert!(is_out() && blocks.unpersisted().len() == 1);
    }

    #[test]
    fn blocks_of_other_gateways_come_into_force_and_go() {
        let blocks = Blocks::default();
        let json = |block: &Block| serde_json::to_vec(block).expect("plain data");
        let theirs = block(None, account(None), None);
        let (id, other) = (BlockId::random(), BlockId::random());
        let stored = |known: &[(BlockId, &Block)]| StoredBlocks {
            known: known.iter().map(|(id, block)| (*id, json(block))).collect(),
            unreadable: Vec::new(),
        };
        assert_eq!(blocks.adopt(Some(&[id]), stored(&[(id, &theirs)])).len(), 1);
        assert!(blocks.find("acme", &ada(), NOW).expect("readable").is_some());
        assert!(blocks.adopt(Some(&[id]), stored(&[(id, &theirs)])).is_empty(), "nothing new");
        // What this gateway has not written yet, or never will, is not the store's to lift.
        let own = blocks.insert(block(Some("acme"), account(None), None));
        let provisional =
            blocks.insert_provisional(block(Some("beta"), account(None), None)).expect("the first");
        blocks.adopt(None, stored(&[(other, &block(Some("gamma"), account(None), None))]));
        assert!(!blocks.contains(id) && blocks.contains(own) && blocks.contains(other));
        assert_eq!(blocks.len(), 3);
        drop(provisional);
        blocks.adopt(Some(&[other]), stored(&[]));
        assert!(!blocks.contains(other) && blocks.contains(own));
        let unreadable = StoredBlocks { known: Vec::new(), unreadable: vec![other] };
        blocks.adopt(Some(&[other]), unreadable);
        assert_eq!(blocks.find("acme", &ada(), NOW), Err(Unavailable), "it could mean anybody");
    }

    #[test]
    fn while_a_block_cannot_be_read_nobody_is_let_in() {
        let id = BlockId::random();
        let blocks =
            Blocks::from_stored(StoredBlocks { known: vec![(id, b"{}".to_vec())], unreadable: vec![] });
        assert_eq!(blocks.find("acme", &ada(), NOW), Err(Unavailable));
        assert!(blocks.contains(id) && blocks.remove(id));
        assert_eq!(blocks.find("acme", &ada(), NOW), Ok(None));
    }

    #[test]
    fn blocks_are_stored_as_ever() {
        for stored in [
            r#"{"tenant":"acme","oid":"o","tid":"t","user":"ada@contoso.com","reason":"left","since":"1970-01-01T00:00:00Z","until":"1970-01-02T00:00:00Z"}"#,
            r#"{"tenant":null,"oid":"o","since":"1970-01-01T00:00:00Z"}"#,
            r#"{"tenant":null,"user":"ada@contoso.com","since":"1970-01-01T00:00:00Z"}"#,
        ] {
            let block: Block = serde_json::from_str(stored).expect("read");
            assert_eq!(serde_json::to_string(&block).expect("text"), stored);
        }
    }
}

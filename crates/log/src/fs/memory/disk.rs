//! A disk below a page cache: what a process sees, what is durable, and what lies between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::{Content, SECTOR_LEN};
use super::crash::{CrashPlan, Fate, PendingKind, PendingOperation};

pub(super) type InodeId = u64;

/// The inode of the root directory.
pub(super) const ROOT: InodeId = 0;

pub(super) type Names = BTreeMap<Arc<str>, InodeId>;

/// One entry of the journal: a change, or a barrier.
#[derive(Clone)]
pub(super) enum Change {
    Name(Arc<NameChange>),
    Data { file: InodeId, change: Arc<DataChange> },
    SyncData { file: InodeId, failed: bool },
    SyncDir { dir: InodeId, failed: bool },
}

/// A change of the names in a directory.
pub(super) struct NameChange {
    /// The path that is created, renamed or removed.
    pub(super) path: Arc<str>,
    /// Where a name disappears.
    pub(super) removed: Option<(InodeId, Arc<str>)>,
    /// Where a name appears, and what it stands for.
    pub(super) added: Option<(InodeId, Arc<str>, InodeId)>,
    /// Whether what appears is new, and a directory.
    pub(super) created: Option<NodeKind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    File,
    Dir,
}

/// A change of a file's bytes or length.
pub(super) enum DataChange {
    Write { position: u64, bytes: Box<[u8]> },
    SetLen(u64),
}

#[derive(Clone)]
pub(super) enum Node {
    Dir(Dir),
    File(File),
}

#[derive(Clone, Default)]
pub(super) struct Dir {
    pub(super) visible: Arc<Names>,
    durable: Arc<Names>,
    /// A sync of it failed: its names become durable no more.
    journal_aborted: bool,
}

#[derive(Clone, Default)]
pub(super) struct File {
    pub(super) visible: Arc<Content>,
    durable: Arc<Content>,
    pending: Vec<PendingData>,
    /// Whether a process that looks now finds it under some name.
    linked: bool,
    handles: u32,
    path: Arc<str>,
}

#[derive(Clone)]
struct PendingData {
    position: u64,
    change: Arc<DataChange>,
    /// A sync failed on it: its pages are clean, no later sync writes them.
    doomed: bool,
}

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Disk {
    nodes: BTreeMap<InodeId, Node>,
    pending_names: Vec<(u64, Arc<NameChange>)>,
    inode_next: InodeId,
    position: u64,
    sweep_at: usize,
}

#[derive(Clone, Copy)]
enum View {
    Visible,
    Durable,
}

impl Disk {
    pub(super) fn empty() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        Self { nodes, pending_names: Vec::new(), inode_next: ROOT + 1, position: 0, sweep_at: 64 }
    }

    /// How many entries the journal has.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn dir(&self, id: InodeId) -> Option<&Dir> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn file(&self, id: InodeId) -> Option<&File> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn file_mut(&mut self, id: InodeId) -> Option<&mut File> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn dir_mut(&mut self, id: InodeId) -> Option<&mut Dir> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    /// An inode number that was never used.
    pub(super) fn inode_next(&self) -> InodeId {
        self.inode_next
    }

    /// How many files and directories are remembered.
    #[cfg(test)]
    pub(super) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Space that visible files take, in bytes.
    pub(super) fn allocated(&self) -> u64 {
        let space = |node: &Node| match node {
            Node::File(file) => file.visible.allocated(),
            Node::Dir(_) => 0,
        };
        self.nodes.values().map(space).sum()
    }

    /// Counts an open handle of a file.
    pub(super) fn open_handle(&mut self, id: InodeId) {
        if let Some(file) = self.file_mut(id) {
            file.handles += 1;
        }
    }

    /// Counts off an open handle; a file without name and handle gives its space back.
    pub(super) fn close_handle(&mut self, id: InodeId) {
        if let Some(file) = self.file_mut(id) {
            file.handles = file.handles.saturating_sub(1);
            file.maybe_release();
        }
    }

    /// Flips the bits of `mask` in one byte of a file, on the disk and in the cache.
    pub(super) fn flip(&mut self, id: InodeId, position: u64, mask: u8) {
        let Some(file) = self.file_mut(id) else { return };
        for content in [&mut file.visible, &mut file.durable] {
            let mut byte = [0];
            if content.read(&mut byte, position) == 1 {
                Arc::make_mut(content).write(&[byte[0] ^ mask], position);
            }
        }
    }

    /// Adds an entry to the journal and carries it out.
    pub(super) fn apply(&mut self, change: &Change) {
        let position = self.position;
        self.position += 1;
        match change {
            Change::Name(change) => {
                self.create_node(change);
                self.change_names(change, View::Visible);
                self.pending_names.push((position, Arc::clone(change)));
                self.maybe_sweep();
            }
            Change::Data { file, change } => {
                if let Some(file) = self.file_mut(*file) {
                    Arc::make_mut(&mut file.visible).change(change);
                    file.pending.push(PendingData { position, change: Arc::clone(change), doomed: false });
                }
            }
            Change::SyncData { file, failed } => {
                if let Some(file) = self.file_mut(*file) {
                    file.sync(*failed);
                }
            }
            Change::SyncDir { dir, failed: true } => {
                if let Some(dir) = self.dir_mut(*dir) {
                    dir.journal_aborted = true;
                }
            }
            Change::SyncDir { dir, failed: false } => self.sync_dir(*dir),
        }
    }

    fn create_node(&mut self, change: &NameChange) {
        let (Some(kind), Some((_, _, id))) = (change.created, &change.added) else { return };
        let node = match kind {
            NodeKind::Dir => Node::Dir(Dir::default()),
            NodeKind::File => Node::File(File { path: Arc::clone(&change.path), ..File::default() }),
        };
        self.nodes.insert(*id, node);
        self.inode_next = self.inode_next.max(id + 1);
    }

    fn change_names(&mut self, change: &NameChange, view: View) {
        if let Some((dir, name)) = &change.removed {
            let gone = self.names_mut(*dir, view).and_then(|names| names.remove(name));
            if change.added.is_none() {
                self.unlink(gone, view);
            }
        }
        if let Some((dir, name, id)) = &change.added {
            let replaced = self.names_mut(*dir, view).and_then(|names| names.insert(Arc::clone(name), *id));
            self.unlink(replaced, view);
            if let (View::Visible, Some(file)) = (view, self.file_mut(*id)) {
                file.linked = true;
            }
        }
    }

    fn names_mut(&mut self, dir: InodeId, view: View) -> Option<&mut Names> {
        let dir = self.dir_mut(dir)?;
        Some(Arc::make_mut(match view {
            View::Visible => &mut dir.visible,
            View::Durable => &mut dir.durable,
        }))
    }

    fn unlink(&mut self, gone: Option<InodeId>, view: View) {
        if let (View::Visible, Some(file)) = (view, gone.and_then(|id| self.file_mut(id))) {
            file.linked = false;
            file.maybe_release();
        }
    }

    /// Makes the names in `dir` durable, with all that their changes depend on: a rename between two directories is
    /// one transaction, so that what came before it in the other directory goes with it.
    fn sync_dir(&mut self, dir: InodeId) {
        if self.dir(dir).is_none_or(|dir| dir.journal_aborted) {
            return;
        }
        let mut dirs = BTreeSet::from([dir]);
        let (mut durable, mut left) = (Vec::new(), Vec::new());
        for entry in std::mem::take(&mut self.pending_names).into_iter().rev() {
            if entry.1.dirs().any(|dir| dirs.contains(&dir)) {
                dirs.extend(entry.1.dirs());
                durable.push(entry);
            } else {
                left.push(entry);
            }
        }
        left.reverse();
        self.pending_names = left;
        for (_, change) in durable.into_iter().rev() {
            self.change_names(&change, View::Durable);
        }
        self.maybe_sweep();
    }

    /// Forgets nodes that nothing can bring back, once they are many.
    fn maybe_sweep(&mut self) {
        if self.nodes.len() < self.sweep_at {
            return;
        }
        let mut reached = self.reachable(true);
        reached.extend(self.nodes.iter().filter(|(_, node)| node.is_open()).map(|(id, _)| *id));
        self.nodes.retain(|id, _| reached.contains(id));
        self.sweep_at = 2 * self.nodes.len().max(32);
    }

    /// The nodes that a boot after a power cut may find, and those that a process finds now if `visible`.
    fn reachable(&self, visible: bool) -> BTreeSet<InodeId> {
        let mut reached = BTreeSet::new();
        let mut open = vec![ROOT];
        open.extend(self.pending_names.iter().filter_map(|(_, change)| Some(change.added.as_ref()?.2)));
        while let Some(id) = open.pop() {
            if reached.insert(id)
                && let Some(dir) = self.dir(id)
            {
                open.extend(dir.durable.values());
                if visible {
                    open.extend(dir.visible.values());
                }
            }
        }
        reached
    }

    /// What no barrier covers yet and could survive a power cut, oldest first.
    pub(super) fn pending(&self) -> Vec<PendingOperation> {
        let may_survive = self.reachable(false);
        let mut pending: Vec<_> = self.pending_names.iter().map(|(p, change)| change.pending(*p)).collect();
        for id in may_survive {
            let Some(file) = self.file(id) else { continue };
            let alive = file.pending.iter().filter(|pending| !pending.doomed);
            pending.extend(alive.map(|p| p.change.pending(p.position, &file.path)));
        }
        pending.sort_unstable_by_key(|pending| pending.position);
        pending
    }

    /// This disk after the power failed. `pending` is what [`pending`](Self::pending) says.
    pub(super) fn after_power_cut(&self, pending: &[PendingOperation], plan: &CrashPlan) -> Self {
        let fate = |position: u64| {
            let index = pending.binary_search_by_key(&position, |pending| pending.position);
            index.map_or(Fate::Lost, |index| plan.fate(index))
        };
        let dirs = self.surviving_names(fate);
        let mut disk = Self { position: 0, inode_next: self.inode_next, ..Self::empty() };
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            let node = match self.nodes.get(&id) {
                Some(Node::Dir(dir)) => {
                    let names = dirs.get(&id).unwrap_or(&dir.durable);
                    open.extend(names.values());
                    let (visible, durable) = (Arc::clone(names), Arc::clone(names));
                    Node::Dir(Dir { visible, durable, journal_aborted: false })
                }
                Some(Node::File(file)) => Node::File(file.after_power_cut(fate)),
                None => continue,
            };
            disk.nodes.insert(id, node);
        }
        disk
    }

    /// The names of those directories that differ from their durable ones.
    fn surviving_names(&self, fate: impl Fn(u64) -> Fate) -> BTreeMap<InodeId, Arc<Names>> {
        let mut changed = BTreeMap::new();
        let mut cut_off = BTreeSet::new();
        for (position, change) in &self.pending_names {
            if fate(*position) != Fate::Kept || change.dirs().any(|dir| cut_off.contains(&dir)) {
                cut_off.extend(change.dirs());
                continue;
            }
            if let Some((dir, name)) = &change.removed {
                self.surviving_dir(&mut changed, *dir).remove(name);
            }
            if let Some((dir, name, id)) = &change.added {
                self.surviving_dir(&mut changed, *dir).insert(Arc::clone(name), *id);
            }
        }
        changed
    }

    fn surviving_dir<'a>(
        &self,
        changed: &'a mut BTreeMap<InodeId, Arc<Names>>,
        id: InodeId,
    ) -> &'a mut Names {
        let durable = || self.dir(id).map(|dir| Arc::clone(&dir.durable)).unwrap_or_default();
        Arc::make_mut(changed.entry(id).or_insert_with(durable))
    }

    /// This disk after the process was killed: open handles are gone, the page cache is not.
    pub(super) fn after_process_kill(&self) -> Self {
        let mut disk = self.clone();
        for node in disk.nodes.values_mut() {
            if let Node::File(file) = node {
                file.handles = 0;
                file.maybe_release();
            }
        }
        disk
    }
}

impl Node {
    fn is_open(&self) -> bool {
        matches!(self, Self::File(file) if file.handles > 0)
    }
}

impl File {
    fn sync(&mut self, failed: bool) {
        if failed {
            self.pending.iter_mut().for_each(|pending| pending.doomed = true);
            return;
        }
        for pending in self.pending.drain(..).filter(|pending| !pending.doomed) {
            Arc::make_mut(&mut self.durable).change(&pending.change);
        }
    }

    fn maybe_release(&mut self) {
        if !self.linked && self.handles == 0 {
            self.visible = Arc::default();
        }
    }

    fn after_power_cut(&self, fate: impl Fn(u64) -> Fate) -> Self {
        let mut content = Arc::clone(&self.durable);
        for pending in self.pending.iter().filter(|pending| !pending.doomed) {
            match (fate(pending.position), pending.change.as_ref()) {
                (Fate::Kept, change) => Arc::make_mut(&mut content).change(change),
                (Fate::Torn { sectors, extends }, DataChange::Write { position, bytes }) => {
                    Arc::make_mut(&mut content).write_torn(bytes, *position, sectors, extends);
                }
                (Fate::Lost | Fate::Torn { .. }, _) => {}
            }
        }
        Self {
            visible: Arc::clone(&content),
            durable: content,
            linked: true,
            path: Arc::clone(&self.path),
            ..Self::default()
        }
    }
}

impl Content {
    fn change(&mut self, change: &DataChange) {
        match change {
            DataChange::Write { position, bytes } => self.write(bytes, *position),
            DataChange::SetLen(len) => self.set_len(*len),
        }
    }
}

impl NameChange {
    fn dirs(&self) -> impl Iterator<Item = InodeId> {
        let removed = self.removed.as_ref().map(|(dir, _)| *dir);
        removed.into_iter().chain(self.added.as_ref().map(|(dir, ..)| *dir))
    }

    fn pending(&self, position: u64) -> PendingOperation {
        let kind = match (&self.removed, &self.added) {
            (None, _) => PendingKind::Create,
            (Some(_), None) => PendingKind::Remove,
            (Some(_), Some(_)) => PendingKind::Rename,
        };
        PendingOperation { position, path: Arc::clone(&self.path), kind }
    }
}

impl DataChange {
    fn pending(&self, journal_position: u64, path: &Arc<str>) -> PendingOperation {
        let kind = match self {
            Self::Write { position, bytes } => {
                let end = position + bytes.len() as u64;
                PendingKind::Write { sectors: end.div_ceil(SECTOR_LEN) - position / SECTOR_LEN }
            }
            Self::SetLen(_) => PendingKind::SetLen,
        };
        PendingOperation { position: journal_position, path: Arc::clone(path), kind }
    }
}

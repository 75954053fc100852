// Every mutex of the sentry has a rank here. A thread may lock a mutex only while all mutexes that it
// holds have a lower rank (equal ranks only through MutexLock2, by address). Debug builds check it.
// Read top to bottom: outer locks first.
#ifndef MOAT_PLATFORM_BASE_LOCK_RANK_H_
#define MOAT_PLATFORM_BASE_LOCK_RANK_H_

namespace moat {

enum class LockRank : int {
  // runsc and control
  kControl = 100,
  // sentry/kernel: the process tree and its parts
  kKernel = 200,  // task lists, pid namespaces, sessions, process groups
  kThreadGroup = 220,
  kFdTable = 240,
  kFsContext = 250,
  kSignal = 260,         // pending signals and actions of a thread group
  kSignalActions = 265,  // actions shared by CLONE_SIGHAND
  kTask = 280,
  kTimer = 290,
  // sentry/ipc, sockets
  kIpc = 300,
  kUnixGc = 315,  // one for the sandbox: sockets that are in flight themselves
  kSocket = 320,
  kSocketPeer = 330,
  // fs
  kEpollNesting = 395,  // one for the sandbox: epoll instances that watch each other
  kEpoll = 400,         // epoll instance: polls other files while held
  kFile = 410,          // per file description (offset)
  kTty = 420,
  kAppend = 430,  // one O_APPEND write of an inode at a time
  // An overlay that a guest mounted works on its layers through the VFS: its own locks are outside of theirs, and
  // those of an overlay on an overlay (2) outside of both.
  kStackedRename2 = 431,
  kStackedDirectory2 = 432,
  kStackedCopyUp2 = 433,  // a copy's way to its place, against removals of the name
  kStackedRename1 = 434,
  kStackedDirectory1 = 435,
  kStackedCopyUp1 = 436,
  kRename = 440,  // one per file system: cross-directory rename
  kMountTree = 450,
  kDirectory = 460,  // directory contents (an inode's children)
  kDentry = 470,
  kOverlay = 475,     // overlay: an object's own state; the work directory of the upper
  kInode = 480,       // attributes and data of one inode
  kInodeChild = 490,  // a layer below: overlay's lower inode
  kFileLocks = 500,
  kPipe = 510,
  kInotify = 520,
  kSignalFd = 530,  // list of signalfds; taken while signals are queued
  // sentry/mm
  kMmMapping = 600,        // VMA tree
  kOverlayMappable = 605,  // mappings of an overlay file: held over the layers' kMappable
  kMappable = 610,         // mappings of one memory object: may be held across InvalidateMapping
  kMmPages = 620,          // guest page -> memory
  kFutex = 660,
  kAddressSpace = 700,  // queue of stub operations
  kStub = 710,
  kMemoryFile = 720,
  // leaves: nothing is locked while one is held, but for the log
  kGofer = 800,
  kOverlayTable = 805,  // which layers' objects are one overlay object
  kHostPoller = 810,    // host fd -> wait queue: notifies while held
  kWaitQueue = 820,
  kEpollReady = 830,  // taken by callbacks of wait queues
  kTimerWheel = 840,
  kScheduler = 860,
  kLeaf = 900,
  kLog = 1000,
};

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_LOCK_RANK_H_

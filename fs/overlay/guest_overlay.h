// The file system type "overlay" as guests mount it: overlays over directories of their own, whose upper keeps its
// state in Linux's format, so that container engines can read it and mount it again. Source:
// Documentation/filesystems/overlayfs.rst.
//
// Not offered, and answered as a kernel does that lacks them or falls back: index, nfs_export, metacopy (whole files
// are copied), verity. Data-only lower layers are accepted and, without metacopy files that lead there, never looked
// at.
#ifndef MOAT_FS_OVERLAY_GUEST_OVERLAY_H_
#define MOAT_FS_OVERLAY_GUEST_OVERLAY_H_

namespace moat {

// Registers the type "overlay". Once, at boot.
void RegisterGuestOverlay();

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_GUEST_OVERLAY_H_

// The vDSO's bytes, built from vdso/ (see CMakeLists.txt), in the sentry's read-only data.
  .section .rodata
  .balign 4096
  .globl moat_vdso_start
  .globl moat_vdso_end
moat_vdso_start:
  .incbin "moat_vdso.so"
moat_vdso_end:
  .section .note.GNU-stack, "", @progbits

// Terminal structs as the kernel lays them out (asm-generic/termbits.h; the C library's struct termios differs).
// <termios.h> has the constants.
#ifndef MOAT_PLATFORM_ABI_TERMIOS_H_
#define MOAT_PLATFORM_ABI_TERMIOS_H_

#include <cstdint>

namespace moat::abi {

inline constexpr int kTermiosCc = 19;  // NCCS of the kernel

struct Termios {  // TCGETS, TCSETS
  uint32_t c_iflag, c_oflag, c_cflag, c_lflag;
  uint8_t c_line;
  uint8_t c_cc[kTermiosCc];
};
static_assert(sizeof(Termios) == 36);

struct Termios2 {  // TCGETS2, TCSETS2
  uint32_t c_iflag, c_oflag, c_cflag, c_lflag;
  uint8_t c_line;
  uint8_t c_cc[kTermiosCc];
  uint32_t c_ispeed, c_ospeed;
};
static_assert(sizeof(Termios2) == 44);

struct Termio {  // TCGETA, TCSETA
  uint16_t c_iflag, c_oflag, c_cflag, c_lflag;
  uint8_t c_line;
  uint8_t c_cc[8];
};
static_assert(sizeof(Termio) == 18);

struct WindowSize {  // TIOCGWINSZ
  uint16_t rows, columns, x_pixels, y_pixels;
};
static_assert(sizeof(WindowSize) == 8);

// ioctl numbers that the C library's headers do not name for these layouts.
inline constexpr uint32_t kTcgets2 = 0x802C542A, kTcsets2 = 0x402C542B, kTcsetsw2 = 0x402C542C, kTcsetsf2 = 0x402C542D;

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_TERMIOS_H_

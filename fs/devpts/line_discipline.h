// N_TTY: what a terminal does with the characters that come from the keyboard and go to the screen. Pure state: it
// knows no file and takes no lock; the pty guards it and carries out what it asks for (Effects).
//
//   keyboard (the master's write) --Input--> backlog -> editing, signals -> read buffer --Read--> program
//   program's write --Output--> output processing -> screen buffer --TakeScreen--> the master's read
//
// Source: termios(3), POSIX.1-2017 chapter 11 "General Terminal Interface"; sizes and corner cases as Linux has them.
#ifndef MOAT_FS_DEVPTS_LINE_DISCIPLINE_H_
#define MOAT_FS_DEVPTS_LINE_DISCIPLINE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "platform/abi/termios.h"

namespace moat {

// What the owner does after it has released its lock.
struct LineEffects {
  uint32_t signals = 0;        // bit n: send signal n to the foreground process group
  bool input_ready = false;    // the program may read
  bool screen_ready = false;   // the master may read
  bool output_room = false;    // the program may write
  bool keyboard_room = false;  // the master may write
  uint8_t packet = 0;          // TIOCPKT_* events for a master in packet mode
};

class LineDiscipline {
 public:
  LineDiscipline();

  const abi::Termios& termios() const { return termios_; }
  // Canonical mode going on or off moves the buffered input along, as Linux does.
  void SetTermios(const abi::Termios& t, LineEffects& fx);

  // --- keyboard side ---
  // Bytes taken; 0 when the backlog is full.
  size_t Input(std::string_view bytes, LineEffects& fx);
  bool KeyboardHasRoom() const { return backlog_.size() < kBacklogSize; }

  // --- program side, reading ---
  // True when a read with `wanted` bytes would be complete: a line, or VMIN bytes (one with `nonblocking`).
  bool CanRead(size_t wanted, bool nonblocking) const;
  // Any byte at all (VTIME's rules look at this).
  bool HasInput() const { return canonical() ? lines_ > 0 : !read_buffer_.empty(); }
  // For poll(2).
  bool PollReadable() const;
  // Appends up to `max` bytes, in canonical mode of one line at most. Call when CanRead.
  void Read(size_t max, std::string& out, LineEffects& fx);
  // Puts bytes of the last Read back (the copy to the guest failed).
  void Unread(std::string_view bytes, bool line_ended);
  int InputCount() const;  // FIONREAD

  // --- program side, writing ---
  size_t Output(std::string_view bytes, LineEffects& fx);
  bool OutputHasRoom() const { return !stopped_ && screen_.size() < kScreenSize; }
  int OutputCount() const { return static_cast<int>(screen_.size()); }  // TIOCOUTQ

  // --- screen side ---
  bool HasScreen() const { return !screen_.empty() && !stopped_; }
  void TakeScreen(size_t max, std::string& out, LineEffects& fx);
  void UntakeScreen(std::string_view bytes) { screen_.insert(0, bytes); }

  // tcflush(3) and tcflow(3).
  void FlushInput(LineEffects& fx);
  void FlushOutput(LineEffects& fx);
  void Stop(LineEffects& fx);
  void Start(LineEffects& fx);
  bool stopped() const { return stopped_; }

  bool canonical() const;
  bool Local(uint32_t flag) const { return (termios_.c_lflag & flag) != 0; }
  // True when ^S and ^Q with their usual characters stop and start (TIOCPKT_DOSTOP).
  static bool UsualFlowControl(const abi::Termios& t);

  static constexpr size_t kReadBufferSize = 4096;
  static constexpr size_t kBacklogSize = 64 << 10;
  static constexpr size_t kScreenSize = 64 << 10;

 private:
  // Low byte: the character. Line ends are marked; an end-of-file mark has no character of its own.
  static constexpr uint16_t kLineEnd = 0x100, kEofMark = 0x200;

  void Pump(LineEffects& fx);
  void InputByte(uint8_t c, LineEffects& fx);
  void InputCanonical(uint8_t c, LineEffects& fx);
  bool InputSpecial(uint8_t c, LineEffects& fx);
  void Append(uint16_t cell, LineEffects& fx);
  void EndLine(uint16_t cell, LineEffects& fx);
  bool HasRoomForInput() const;
  size_t EditableCount() const;  // cells after the last line end
  void Erase(LineEffects& fx);
  void EraseOne(LineEffects& fx);
  void EraseWord(LineEffects& fx);
  void KillLine(LineEffects& fx);
  void Reprint(LineEffects& fx);
  void FinishErasePrint(LineEffects& fx);

  void Echo(uint8_t c, LineEffects& fx);  // with ^X notation as ECHOCTL asks
  void EchoRaw(std::string_view s, LineEffects& fx);
  void OutputByte(uint8_t c);
  int EchoWidth(uint8_t c) const;
  bool Is(uint8_t c, int index) const { return c == termios_.c_cc[index] && c != 0; }
  bool Input(uint32_t flag) const { return (termios_.c_iflag & flag) != 0; }

  abi::Termios termios_;
  std::string backlog_;               // typed, not yet processed: the read buffer was full
  std::deque<uint16_t> read_buffer_;  // processed
  size_t lines_ = 0;                  // line ends in read_buffer_
  bool literal_next_ = false;         // after VLNEXT
  bool erasing_ = false;              // ECHOPRT: inside of \.../
  bool stopped_ = false;
  std::string screen_;
  unsigned column_ = 0;
  unsigned line_start_column_ = 0;  // where the line that is being edited began
};

}  // namespace moat

#endif  // MOAT_FS_DEVPTS_LINE_DISCIPLINE_H_

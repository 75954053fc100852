#include "fs/devpts/line_discipline.h"

#include <sys/ioctl.h>
#include <termios.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstring>

namespace moat {
namespace {
bool IsControl(uint8_t c) { return c < 0x20 || c == 0x7f; }
bool IsContinuation(uint8_t c) { return (c & 0xc0) == 0x80; }
bool IsWordCharacter(uint8_t c) { return isalnum(c) || c == '_' || c >= 0x80; }
}  // namespace

LineDiscipline::LineDiscipline() : termios_{} {
  // Linux's tty_std_termios with the pty driver's character size and speed.
  termios_.c_iflag = ICRNL | IXON;
  termios_.c_oflag = OPOST | ONLCR;
  termios_.c_cflag = B38400 | CS8 | CREAD;
  termios_.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
  uint8_t* cc = termios_.c_cc;
  cc[VINTR] = 3;
  cc[VQUIT] = 28;
  cc[VERASE] = 127;
  cc[VKILL] = 21;
  cc[VEOF] = 4;
  cc[VTIME] = 0;
  cc[VMIN] = 1;
  cc[VSTART] = 17;
  cc[VSTOP] = 19;
  cc[VSUSP] = 26;
  cc[VREPRINT] = 18;
  cc[VDISCARD] = 15;
  cc[VWERASE] = 23;
  cc[VLNEXT] = 22;
}

bool LineDiscipline::canonical() const { return Local(ICANON); }

bool LineDiscipline::UsualFlowControl(const abi::Termios& t) {
  return (t.c_iflag & IXON) && t.c_cc[VSTOP] == 19 && t.c_cc[VSTART] == 17;
}

void LineDiscipline::SetTermios(const abi::Termios& t, LineEffects& fx) {
  const bool was_canonical = canonical();
  const bool had_flow = Input(IXON);
  termios_ = t;
  if (was_canonical != canonical()) {
    if (canonical()) {
      // What was typed raw becomes one line that can be read at once.
      lines_ = 0;
      for (uint16_t& cell : read_buffer_) cell &= 0xff;
      if (!read_buffer_.empty()) {
        read_buffer_.back() |= kLineEnd;
        lines_ = 1;
      }
    } else {
      std::erase_if(read_buffer_, [](uint16_t cell) { return (cell & kEofMark) != 0; });
      for (uint16_t& cell : read_buffer_) cell &= 0xff;
      lines_ = 0;
    }
    literal_next_ = false;
    erasing_ = false;
    line_start_column_ = column_;
  }
  if (had_flow && !Input(IXON) && stopped_) Start(fx);
  Pump(fx);
  if (PollReadable()) fx.input_ready = true;
}

// --- keyboard ---

size_t LineDiscipline::Input(std::string_view bytes, LineEffects& fx) {
  size_t n = std::min(bytes.size(), kBacklogSize - std::min(kBacklogSize, backlog_.size()));
  backlog_.append(bytes.substr(0, n));
  Pump(fx);
  return n;
}

bool LineDiscipline::HasRoomForInput() const {
  if (read_buffer_.size() < kReadBufferSize - 1) return true;
  // A full buffer without a complete line must go on: the rest is dropped until the line ends.
  return canonical() && lines_ == 0;
}

void LineDiscipline::Pump(LineEffects& fx) {
  if (backlog_.empty()) return;
  size_t used = 0;
  while (used < backlog_.size() && HasRoomForInput()) InputByte(static_cast<uint8_t>(backlog_[used++]), fx);
  if (used == 0) return;
  backlog_.erase(0, used);
  fx.keyboard_room = true;
}

void LineDiscipline::Append(uint16_t cell, LineEffects& fx) {
  const bool ends_line = (cell & (kLineEnd | kEofMark)) != 0;
  // One place is kept for the end of the line.
  if (read_buffer_.size() >= kReadBufferSize - (ends_line ? 0 : 1)) {
    if (Input(IMAXBEL)) EchoRaw("\a", fx);
    return;
  }
  read_buffer_.push_back(cell);
  if (ends_line) ++lines_;
  if (!canonical() || ends_line) fx.input_ready = true;
}

void LineDiscipline::InputByte(uint8_t c, LineEffects& fx) {
  if (Input(ISTRIP)) c &= 0x7f;
  if (Input(IUCLC) && Local(IEXTEN) && c >= 'A' && c <= 'Z') c += 'a' - 'A';
  if (literal_next_) {
    literal_next_ = false;
    if (Local(ECHO)) {
      FinishErasePrint(fx);
      Echo(c, fx);
    }
    if (c == 0xff && Input(PARMRK)) Append(c, fx);
    Append(c, fx);
    return;
  }
  if (stopped_ && Input(IXON) && Input(IXANY) && Local(ISIG) && !Is(c, VSTART) && !Is(c, VSTOP) && !Is(c, VINTR) &&
      !Is(c, VQUIT) && !Is(c, VSUSP)) {
    Start(fx);
  }
  if (InputSpecial(c, fx)) return;
  if (c == '\r') {
    if (Input(IGNCR)) return;
    if (Input(ICRNL)) c = '\n';
  } else if (c == '\n' && Input(INLCR)) {
    c = '\r';
  }
  if (canonical()) {
    InputCanonical(c, fx);
    return;
  }
  if (Local(ECHO)) {
    if (c == '\n') {
      EchoRaw("\n", fx);
    } else {
      Echo(c, fx);
    }
  }
  if (c == 0xff && Input(PARMRK)) Append(c, fx);
  Append(c, fx);
}

// Flow control and signals; true when `c` was one of them.
bool LineDiscipline::InputSpecial(uint8_t c, LineEffects& fx) {
  if (Input(IXON)) {
    if (Is(c, VSTART)) {
      Start(fx);
      return true;
    }
    if (Is(c, VSTOP)) {
      Stop(fx);
      return true;
    }
  }
  if (!Local(ISIG)) return false;
  int signo = Is(c, VINTR) ? SIGINT : Is(c, VQUIT) ? SIGQUIT : Is(c, VSUSP) ? SIGTSTP : 0;
  if (signo == 0) return false;
  fx.signals |= 1u << signo;
  if (!Local(NOFLSH)) {
    // The rest of the backlog, typed after the signal, stays.
    read_buffer_.clear();
    lines_ = 0;
    if (!screen_.empty()) {
      screen_.clear();
      fx.packet |= TIOCPKT_FLUSHWRITE;
      fx.output_room = true;
    }
    fx.packet |= TIOCPKT_FLUSHREAD;
  }
  if (Input(IXON) && stopped_) Start(fx);
  if (Local(ECHO)) Echo(c, fx);
  return true;
}

void LineDiscipline::EndLine(uint16_t cell, LineEffects& fx) {
  FinishErasePrint(fx);
  Append(cell, fx);
  line_start_column_ = column_;
}

void LineDiscipline::InputCanonical(uint8_t c, LineEffects& fx) {
  const bool extended = Local(IEXTEN);
  if (Is(c, VERASE)) return EraseOne(fx);
  if (extended && Is(c, VWERASE)) return EraseWord(fx);
  if (Is(c, VKILL)) return KillLine(fx);
  if (extended && Is(c, VLNEXT)) {
    literal_next_ = true;
    if (Local(ECHO)) {
      FinishErasePrint(fx);
      if (Local(ECHOCTL)) EchoRaw("^\b", fx);
    }
    return;
  }
  if (extended && Local(ECHO) && Is(c, VREPRINT)) return Reprint(fx);
  if (c == '\n') {
    if (Local(ECHO) || Local(ECHONL)) EchoRaw("\n", fx);
    return EndLine('\n' | kLineEnd, fx);
  }
  if (Is(c, VEOF)) return EndLine(kEofMark, fx);
  if (Is(c, VEOL) || (extended && Is(c, VEOL2))) {
    if (Local(ECHO)) Echo(c, fx);
    if (c == 0xff && Input(PARMRK)) Append(c, fx);
    return EndLine(c | kLineEnd, fx);
  }
  if (Local(ECHO)) {
    FinishErasePrint(fx);
    if (EditableCount() == 0) line_start_column_ = column_;
    Echo(c, fx);
  }
  if (c == 0xff && Input(PARMRK)) Append(c, fx);
  Append(c, fx);
}

// --- editing ---

size_t LineDiscipline::EditableCount() const {
  size_t n = 0;
  for (auto at = read_buffer_.rbegin(); at != read_buffer_.rend() && !(*at & (kLineEnd | kEofMark)); ++at) ++n;
  return n;
}

int LineDiscipline::EchoWidth(uint8_t c) const {
  if (Input(IUTF8) && IsContinuation(c)) return 0;
  if (IsControl(c)) return Local(ECHOCTL) ? 2 : 0;
  return 1;
}

// Takes the last character of the line away (all bytes of it in UTF-8) and erases its echo.
void LineDiscipline::Erase(LineEffects& fx) {
  uint8_t c;
  std::string erased;
  do {
    c = static_cast<uint8_t>(read_buffer_.back());
    read_buffer_.pop_back();
    erased.insert(erased.begin(), static_cast<char>(c));
  } while (Input(IUTF8) && IsContinuation(c) && EditableCount() > 0);
  if (!Local(ECHO)) return;
  if (Local(ECHOPRT)) {
    if (!erasing_) {
      EchoRaw("\\", fx);
      erasing_ = true;
    }
    for (char e : erased) Echo(static_cast<uint8_t>(e), fx);
    return;
  }
  if (c == '\t') {
    // Back to where the tab began: the column of what is left of the line.
    unsigned column = line_start_column_;
    for (auto at = read_buffer_.end() - static_cast<ptrdiff_t>(EditableCount()); at != read_buffer_.end(); ++at) {
      auto b = static_cast<uint8_t>(*at);
      column = b == '\t' ? (column | 7) + 1 : column + EchoWidth(b);
    }
    while (column_ > column) EchoRaw("\b", fx);
    return;
  }
  for (int i = EchoWidth(c); i > 0; --i) EchoRaw("\b \b", fx);
}

void LineDiscipline::EraseOne(LineEffects& fx) {
  if (EditableCount() == 0) return;
  if (Local(ECHO) && !Local(ECHOE) && !Local(ECHOPRT)) {
    uint8_t erase = termios_.c_cc[VERASE];
    uint8_t c;
    do {
      c = static_cast<uint8_t>(read_buffer_.back());
      read_buffer_.pop_back();
    } while (Input(IUTF8) && IsContinuation(c) && EditableCount() > 0);
    Echo(erase, fx);
    return;
  }
  Erase(fx);
}

void LineDiscipline::EraseWord(LineEffects& fx) {
  bool seen_word = false;
  while (EditableCount() > 0) {
    bool word = IsWordCharacter(static_cast<uint8_t>(read_buffer_.back()));
    if (word) {
      seen_word = true;
    } else if (seen_word) {
      break;
    }
    Erase(fx);
  }
}

void LineDiscipline::KillLine(LineEffects& fx) {
  size_t n = EditableCount();
  if (n == 0) return;
  if (Local(ECHO) && Local(ECHOK) && Local(ECHOKE) && Local(ECHOE)) {
    while (EditableCount() > 0) Erase(fx);
    return;
  }
  read_buffer_.resize(read_buffer_.size() - n);
  if (!Local(ECHO)) return;
  FinishErasePrint(fx);
  Echo(termios_.c_cc[VKILL], fx);
  if (Local(ECHOK)) EchoRaw("\n", fx);
  line_start_column_ = column_;
}

void LineDiscipline::Reprint(LineEffects& fx) {
  FinishErasePrint(fx);
  Echo(termios_.c_cc[VREPRINT], fx);
  EchoRaw("\n", fx);
  line_start_column_ = column_;
  size_t n = EditableCount();
  for (size_t i = read_buffer_.size() - n; i < read_buffer_.size(); ++i)
    Echo(static_cast<uint8_t>(read_buffer_[i]), fx);
}

void LineDiscipline::FinishErasePrint(LineEffects& fx) {
  if (!erasing_) return;
  EchoRaw("/", fx);
  erasing_ = false;
}

// --- echo and output ---

void LineDiscipline::EchoRaw(std::string_view s, LineEffects& fx) {
  if (screen_.size() >= 2 * kScreenSize) return;  // nobody reads the screen: echo is lost, never memory
  for (char c : s) OutputByte(static_cast<uint8_t>(c));
  fx.screen_ready = true;
}

void LineDiscipline::Echo(uint8_t c, LineEffects& fx) {
  if (Local(ECHOCTL) && IsControl(c) && c != '\t') {
    const char text[2] = {'^', static_cast<char>(c ^ 0100)};
    EchoRaw({text, 2}, fx);
    return;
  }
  const char text[1] = {static_cast<char>(c)};
  EchoRaw({text, 1}, fx);
}

void LineDiscipline::OutputByte(uint8_t c) {
  const uint32_t o = termios_.c_oflag;
  if (!(o & OPOST)) {
    screen_.push_back(static_cast<char>(c));
    return;
  }
  switch (c) {
    case '\n':
      if (o & ONLRET) column_ = 0;
      if (o & ONLCR) {
        column_ = 0;
        screen_ += "\r\n";
        return;
      }
      break;
    case '\r':
      if ((o & ONOCR) && column_ == 0) return;
      if (o & OCRNL) {
        if (o & ONLRET) column_ = 0;
        c = '\n';
        break;
      }
      column_ = 0;
      break;
    case '\t': {
      unsigned spaces = 8 - (column_ & 7);
      column_ += spaces;
      if ((o & TABDLY) == XTABS) {
        screen_.append(spaces, ' ');
        return;
      }
      break;
    }
    case '\b':
      if (column_ > 0) --column_;
      break;
    default:
      if ((o & OLCUC) && c >= 'a' && c <= 'z') c -= 'a' - 'A';
      if (!IsControl(c) && !(Input(IUTF8) && IsContinuation(c))) ++column_;
      break;
  }
  screen_.push_back(static_cast<char>(c));
}

size_t LineDiscipline::Output(std::string_view bytes, LineEffects& fx) {
  if (stopped_) return 0;
  size_t n = 0;
  if (!(termios_.c_oflag & OPOST)) {
    n = std::min(bytes.size(), kScreenSize - std::min(kScreenSize, screen_.size()));
    screen_.append(bytes.substr(0, n));
  } else {
    while (n < bytes.size() && screen_.size() < kScreenSize) OutputByte(static_cast<uint8_t>(bytes[n++]));
  }
  if (n > 0) fx.screen_ready = true;
  if (EditableCount() == 0) line_start_column_ = column_;
  return n;
}

void LineDiscipline::TakeScreen(size_t max, std::string& out, LineEffects& fx) {
  if (stopped_) return;
  size_t n = std::min(max, screen_.size());
  out.append(screen_, 0, n);
  const bool was_full = screen_.size() >= kScreenSize;
  screen_.erase(0, n);
  if (was_full || screen_.empty()) fx.output_room = true;
}

// --- reading ---

bool LineDiscipline::CanRead(size_t wanted, bool nonblocking) const {
  if (canonical()) return lines_ > 0;
  size_t minimum = nonblocking ? 1 : termios_.c_cc[VMIN];
  return read_buffer_.size() >= std::min(minimum, wanted);
}

bool LineDiscipline::PollReadable() const {
  if (canonical()) return lines_ > 0;
  size_t minimum = termios_.c_cc[VTIME] == 0 && termios_.c_cc[VMIN] != 0 ? termios_.c_cc[VMIN] : 1;
  return read_buffer_.size() >= minimum;
}

void LineDiscipline::Read(size_t max, std::string& out, LineEffects& fx) {
  while (!read_buffer_.empty() && (out.size() < max || (canonical() && (read_buffer_.front() & kEofMark)))) {
    uint16_t cell = read_buffer_.front();
    read_buffer_.pop_front();
    if (!(cell & kEofMark)) out.push_back(static_cast<char>(cell));
    if (cell & (kLineEnd | kEofMark)) {
      --lines_;
      if (canonical()) break;
    }
  }
  Pump(fx);
}

void LineDiscipline::Unread(std::string_view bytes, bool line_ended) {
  if (bytes.empty()) return;
  for (size_t i = bytes.size(); i > 0; --i) read_buffer_.push_front(static_cast<uint8_t>(bytes[i - 1]));
  if (line_ended && canonical()) {
    read_buffer_[bytes.size() - 1] |= kLineEnd;
    ++lines_;
  }
}

int LineDiscipline::InputCount() const {
  if (!canonical()) return static_cast<int>(read_buffer_.size());
  if (lines_ == 0) return 0;
  size_t complete = read_buffer_.size() - EditableCount();
  size_t marks = 0;
  for (size_t i = 0; i < complete; ++i) marks += (read_buffer_[i] & kEofMark) != 0;
  return static_cast<int>(complete - marks);
}

// --- flush, stop, start ---

void LineDiscipline::FlushInput(LineEffects& fx) {
  read_buffer_.clear();
  backlog_.clear();
  lines_ = 0;
  literal_next_ = false;
  fx.keyboard_room = true;
  fx.packet |= TIOCPKT_FLUSHREAD;
}

void LineDiscipline::FlushOutput(LineEffects& fx) {
  screen_.clear();
  fx.output_room = true;
  fx.packet |= TIOCPKT_FLUSHWRITE;
}

void LineDiscipline::Stop(LineEffects& fx) {
  if (stopped_) return;
  stopped_ = true;
  fx.packet = static_cast<uint8_t>((fx.packet & ~TIOCPKT_START) | TIOCPKT_STOP);
}

void LineDiscipline::Start(LineEffects& fx) {
  if (!stopped_) return;
  stopped_ = false;
  fx.packet = static_cast<uint8_t>((fx.packet & ~TIOCPKT_STOP) | TIOCPKT_START);
  fx.output_room = true;
  if (!screen_.empty()) fx.screen_ready = true;
}

}  // namespace moat

#include "fs/devpts/line_discipline.h"

#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <csignal>

namespace moat {
namespace {

class LineDisciplineTest : public ::testing::Test {
 protected:
  void Type(std::string_view keys) { EXPECT_EQ(line.Input(keys, fx), keys.size()); }
  std::string Read(size_t max = 4096) {
    std::string out;
    line.Read(max, out, fx);
    return out;
  }
  std::string Screen() {
    std::string out;
    line.TakeScreen(1 << 20, out, fx);
    return out;
  }
  template <typename F>
  void Change(F change) {
    abi::Termios t = line.termios();
    change(t);
    line.SetTermios(t, fx);
  }
  void Raw(uint8_t vmin = 1) {
    Change([&](abi::Termios& t) {
      t.c_iflag = 0;
      t.c_oflag = 0;
      t.c_lflag = 0;
      t.c_cc[VMIN] = vmin;
      t.c_cc[VTIME] = 0;
    });
  }
  LineDiscipline line;
  LineEffects fx;
};

TEST_F(LineDisciplineTest, ALineIsReadableWhenItEnds) {
  Type("ab");
  EXPECT_FALSE(line.CanRead(10, false));
  EXPECT_EQ(line.InputCount(), 0);
  Type("c\rnext\n");
  EXPECT_TRUE(fx.input_ready);
  EXPECT_EQ(line.InputCount(), 9);
  EXPECT_EQ(Read(2), "ab");
  EXPECT_EQ(Read(), "c\n");  // ICRNL
  EXPECT_EQ(Read(), "next\n");
  EXPECT_FALSE(line.CanRead(10, false));
  EXPECT_EQ(Screen(), "abc\r\nnext\r\n");
}

TEST_F(LineDisciplineTest, EraseWordAndKillEditTheLine) {
  Type("one two\x17xx\x7f\x7f\n");
  EXPECT_EQ(Read(), "one \n");
  Screen();
  Type("gone\x15kept\n");
  EXPECT_EQ(Read(), "kept\n");
  EXPECT_EQ(Screen(), "gone\b \b\b \b\b \b\b \bkept\r\n");
  Type("\x7f\x7fz\n");  // nothing to erase before the line
  EXPECT_EQ(Read(), "z\n");
}

TEST_F(LineDisciplineTest, ErasingATabGoesBackToItsStart) {
  Type("ab\t");
  EXPECT_EQ(Screen(), "ab\t");
  Type("\x7f");
  EXPECT_EQ(Screen(), "\b\b\b\b\b\b");
}

TEST_F(LineDisciplineTest, Utf8CharactersAreErasedWhole) {
  Change([](abi::Termios& t) { t.c_iflag |= IUTF8; });
  Type("a\xc3\xa4\x7f\n");
  EXPECT_EQ(Read(), "a\n");
  EXPECT_EQ(Screen(), "a\xc3\xa4\b \b\r\n");
}

TEST_F(LineDisciplineTest, EndOfFileEndsALineWithoutACharacter) {
  Type("ab\x04");
  EXPECT_EQ(Read(), "ab");
  Type("\x04");
  EXPECT_TRUE(line.CanRead(10, false));
  EXPECT_EQ(Read(), "");
  EXPECT_FALSE(line.CanRead(10, false));
  // An end-of-file right at the end of a full read does not give a second, empty one.
  Type("xy\x04");
  EXPECT_EQ(Read(2), "xy");
  EXPECT_FALSE(line.CanRead(10, false));
}

TEST_F(LineDisciplineTest, LiteralNextTakesTheSpecialMeaningAway) {
  Type("\x16\x03\x16\x04z\n");
  EXPECT_EQ(fx.signals, 0u);
  EXPECT_EQ(Read(), "\x03\x04z\n");
}

TEST_F(LineDisciplineTest, SignalsFlushAndEcho) {
  Type("typed\x03");
  EXPECT_EQ(fx.signals, 1u << SIGINT);
  EXPECT_EQ(Screen(), "^C");
  Type("\n");
  EXPECT_EQ(Read(), "\n");
  fx = {};
  Change([](abi::Termios& t) { t.c_lflag |= NOFLSH; });
  Type("kept\x1c\x1a\n");
  EXPECT_EQ(fx.signals, 1u << SIGQUIT | 1u << SIGTSTP);
  EXPECT_EQ(Read(), "kept\n");
}

TEST_F(LineDisciplineTest, EchoOffAndEchonl) {
  Change([](abi::Termios& t) {
    t.c_lflag &= ~ECHO;
    t.c_lflag |= ECHONL;
  });
  Type("secret\n");
  EXPECT_EQ(Screen(), "\r\n");
}

TEST_F(LineDisciplineTest, RawModeHonoursVmin) {
  Raw(3);
  Type("a\x03");
  EXPECT_EQ(fx.signals, 0u);
  EXPECT_FALSE(line.CanRead(10, false));
  EXPECT_TRUE(line.CanRead(10, true));
  EXPECT_TRUE(line.CanRead(2, false));
  EXPECT_FALSE(line.PollReadable());
  Type("\r");
  EXPECT_TRUE(line.PollReadable());
  EXPECT_EQ(Read(), "a\x03\r");
  EXPECT_EQ(Screen(), "");
}

TEST_F(LineDisciplineTest, OutputProcessingTracksColumns) {
  EXPECT_EQ(line.Output("a\n\tb", fx), 4u);
  EXPECT_EQ(Screen(), "a\r\n\tb");
  Change([](abi::Termios& t) { t.c_oflag |= XTABS; });
  line.Output("\r123\tx", fx);
  EXPECT_EQ(Screen(), "\r123     x");
  Change([](abi::Termios& t) { t.c_oflag &= ~OPOST; });
  line.Output("\n", fx);
  EXPECT_EQ(Screen(), "\n");
}

TEST_F(LineDisciplineTest, StopAndStart) {
  Type("\x13");
  EXPECT_EQ(fx.packet & TIOCPKT_STOP, TIOCPKT_STOP);
  EXPECT_FALSE(line.OutputHasRoom());
  EXPECT_EQ(line.Output("x", fx), 0u);
  Type("\x11");
  EXPECT_TRUE(fx.output_room);
  EXPECT_EQ(line.Output("x", fx), 1u);
}

TEST_F(LineDisciplineTest, ALineTooLongIsCutButStillEnds) {
  std::string keys(6000, 'x');
  Type(keys);
  Type("\n");
  std::string got;
  while (line.CanRead(4096, false)) got += Read();
  EXPECT_EQ(got.size(), 4096u);
  EXPECT_EQ(got.back(), '\n');
}

TEST_F(LineDisciplineTest, RawInputIsNeverLost) {
  Raw();
  std::string keys;
  for (int i = 0; i < 20'000; ++i) keys += static_cast<char>('a' + i % 26);
  EXPECT_EQ(line.Input(keys, fx), keys.size());
  std::string got;
  while (line.CanRead(1000, false)) got += Read(1000);
  EXPECT_EQ(got, keys);
}

TEST_F(LineDisciplineTest, TypedAheadBecomesALineInCanonicalMode) {
  Raw();
  Type("abc");
  Change([](abi::Termios& t) { t.c_lflag |= ICANON; });
  EXPECT_EQ(Read(), "abc");
}

}  // namespace
}  // namespace moat

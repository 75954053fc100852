# timeout: 120
# gcc, g++ and make on small programs.
set -e
mkdir /tmp/b && cd /tmp/b
cat >m.c <<'C'
#include <stdio.h>
int twice(int);
int main(int c, char **v) { printf("%d arguments, %d\n", c - 1, twice(21)); return 7; }
C
echo 'int twice(int n) { return 2 * n; }' >t.c
printf 'all: m\nm: m.o t.o\n\t$(CC) -o $@ $^\n%%.o: %%.c\n\t$(CC) -O2 -c -o $@ $<\n' >Makefile
make -j4 | sort
./m a b || echo "status $?"
gcc -static -O1 m.c t.c -o s && ./s || echo "status $?"
cat >p.cc <<'C'
#include <algorithm>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
int main() {
  std::vector<int> v; std::map<std::string, int> m; for (int i = 0; i < 1000; ++i) { v.push_back(i * 7 % 1000); m[std::to_string(i % 10)] += i; }
  std::sort(v.begin(), v.end()); std::thread t([] { std::cout << "thread" << std::endl; }); t.join();
  try { throw std::runtime_error("caught"); } catch (const std::exception& e) { std::cout << e.what() << " " << v[500] << " " << m["3"] << "\n"; }
}
C
g++ -O2 -pthread p.cc -o p && ./p
gcc -g -fPIC -shared t.c -o libt.so && gcc m.c -L. -lt -Wl,-rpath,. -o d && ./d || echo "status $?"
echo 'int main( { }' | gcc -x c - -o bad 2>/dev/null || echo "compile error $?"

// /proc/cpuinfo from the CPUID instruction, which guests can run themselves. Names of the flags as Linux has them
// (arch/x86/include/asm/cpufeatures.h documents leaf and bit of each).
#include <cpuid.h>
#include <fmt/format.h>

#include <cstring>

#include "sentry/procfs/system_files.h"

namespace moat {
namespace {

struct Leaf {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Leaf Cpuid(uint32_t leaf, uint32_t sub = 0) {
  Leaf l;
  uint32_t base = leaf & 0x80000000;
  if (__get_cpuid_max(base, nullptr) < leaf) return l;
  __cpuid_count(leaf, sub, l.a, l.b, l.c, l.d);
  return l;
}

// Names by bit, separated by blanks; "-" for a bit without a name of its own.
void AddFlags(std::string& out, uint32_t bits, const char* names) {
  for (int bit = 0; *names != '\0'; ++bit) {
    size_t n = strcspn(names, " ");
    if (((bits >> bit) & 1) && !(n == 1 && *names == '-')) {
      if (!out.empty()) out += ' ';
      out.append(names, n);
    }
    names += n;
    while (*names == ' ') ++names;
  }
}

std::string Flags() {
  std::string s;
  const Leaf l1 = Cpuid(1), l7 = Cpuid(7), ld = Cpuid(0xd, 1), e1 = Cpuid(0x80000001), e7 = Cpuid(0x80000007);
  AddFlags(s, l1.d,
           "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr "
           "sse sse2 ss ht tm ia64 pbe");
  AddFlags(
      s, e1.d,
      "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow");
  AddFlags(s, e7.d, "- - - - - - - - constant_tsc - - - - - -");
  AddFlags(s, l1.c,
           "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 "
           "sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave - avx f16c rdrand hypervisor");
  AddFlags(s, e1.c,
           "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - "
           "lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx - -");
  AddFlags(s, l7.b,
           "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cqm - mpx rdt_a avx512f avx512dq rdseed "
           "adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl");
  AddFlags(s, l7.c,
           "- avx512vbmi umip pku - waitpkg avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg tme "
           "avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri movdir64b enqcmd - -");
  AddFlags(s, l7.d,
           "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - md_clear - - - serialize - tsxldtrk - "
           "pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile amx_int8 - - flush_l1d arch_capabilities - -");
  AddFlags(s, ld.a, "xsaveopt xsavec xgetbv1 xsaves");
  return s;
}

}  // namespace

std::string CpuInfo(int cpus) {
  const Leaf l0 = Cpuid(0), l1 = Cpuid(1), e8 = Cpuid(0x80000008);
  char vendor[13] = {};
  memcpy(vendor, &l0.b, 4);
  memcpy(vendor + 4, &l0.d, 4);
  memcpy(vendor + 8, &l0.c, 4);
  char brand[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    Leaf l = Cpuid(0x80000002 + i);
    memcpy(brand + i * 16, &l, 16);
  }
  uint32_t family = (l1.a >> 8) & 0xf, model = (l1.a >> 4) & 0xf;
  if (family >= 6) model |= ((l1.a >> 16) & 0xf) << 4;
  if (family == 15) family += (l1.a >> 20) & 0xff;
  const std::string flags = Flags();
  const uint32_t clflush = ((l1.b >> 8) & 0xff) * 8;
  std::string s;
  for (int i = 0; i < cpus; ++i) {
    s += fmt::format("processor\t: {}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\n", i, vendor,
                     family, model, brand[0] != '\0' ? brand : "unknown");
    s += fmt::format("stepping\t: {}\ncpu MHz\t\t: {}\ncache size\t: 0 KB\n", l1.a & 0xf, "0.000");
    s += fmt::format("physical id\t: 0\nsiblings\t: {}\ncore id\t\t: {}\ncpu cores\t: {}\napicid\t\t: {}\n", cpus, i,
                     cpus, i);
    s += fmt::format("initial apicid\t: {}\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: {}\nwp\t\t: yes\n", i,
                     l0.a);
    s += fmt::format("flags\t\t: {}\nbugs\t\t:\nbogomips\t: 0.00\nclflush size\t: {}\ncache_alignment\t: {}\n", flags,
                     clflush, clflush);
    s += fmt::format("address sizes\t: {} bits physical, {} bits virtual\npower management:\n\n", e8.a & 0xff,
                     (e8.a >> 8) & 0xff);
  }
  return s;
}

}  // namespace moat

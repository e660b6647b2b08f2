// Linked in for an older system only (KDOPS_GLIBC): what the headers of a newer GCC ask of the system's
// libraries and those of glibc 2.28 and GCC 8 do not have. All of it stays inside (exports.map).
#include <sstream>

#ifdef __GLIBCXX__
// Members of streams that GCC 9 and 11 moved into libstdc++; torch's check macro uses them.
template std::basic_ostringstream<char>::basic_ostringstream();
template std::basic_stringstream<char>::basic_stringstream();
template std::string std::basic_stringbuf<char>::str() const&;
template std::string std::basic_stringbuf<char>::str() &&;
#endif

// shared_ptr asks glibc 2.32 whether it may count without atomics. Not where torch computes.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

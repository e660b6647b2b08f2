# With KDOPS_GLIBC (2.28 for a manylinux_2_28 wheel) the library asks for no symbol that glibc got
# later, whatever glibc is here. One that cannot be had from the older glibc is an error of the linker.
function(kdops_for_glibc target version)
  find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)
  set(here ${CMAKE_CURRENT_SOURCE_DIR}/cmake)
  set(stubs ${CMAKE_CURRENT_BINARY_DIR}/glibc)
  execute_process(COMMAND ${Python3_EXECUTABLE} ${here}/glibc_stubs.py ${CMAKE_CXX_COMPILER} ${version} ${stubs}
                  RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "KDOPS_GLIBC=${version} needs a C library that is glibc, and binutils' readelf")
  endif()
  target_sources(${target} PRIVATE ${here}/older_system.cpp)
  target_link_directories(${target} BEFORE PRIVATE ${stubs})
  target_link_options(${target} PRIVATE -Wl,-z,defs)
endfunction()

# Compiles every *.bpf.c of this folder and embeds the objects into a library as bytes: argus_embed_bpf(<target>).
# Needs clang with the bpf back end and bpf/bpf_helpers.h (libbpf-dev). Without them, and for a program that this clang
# cannot compile, there are no bytes: the build goes on, and what needs the object says at run time that it is absent.
# As a script (cmake -P): writes the bytes of OBJECT as the C++ array NAME into OUTPUT.
if(CMAKE_SCRIPT_MODE_FILE)
    file(READ ${OBJECT} BYTES HEX)
    string(REGEX REPLACE "(..)" "0x\\1," BYTES "${BYTES}")
    file(WRITE ${OUTPUT} "namespace argus::sources::bpf {\n"
        "extern const unsigned char ${NAME}_object[];\nextern const unsigned long ${NAME}_object_size;\n"
        "alignas(8) const unsigned char ${NAME}_object[] = {\n${BYTES}\n};\n"
        "const unsigned long ${NAME}_object_size = sizeof ${NAME}_object;\n}\n")
    return()
endif()

set(ARGUS_BPF_FOLDER ${CMAKE_CURRENT_LIST_DIR})

function(argus_embed_bpf TARGET)
    set(FLAGS -O2 -g -target bpf -mcpu=v3 -Wall -Wno-unused-function -Wno-unknown-attributes)
    set(OUT ${CMAKE_CURRENT_BINARY_DIR}/bpf)
    file(MAKE_DIRECTORY ${OUT})
    file(GLOB PROGRAMS CONFIGURE_DEPENDS ${ARGUS_BPF_FOLDER}/*.bpf.c)
    file(GLOB HEADERS CONFIGURE_DEPENDS ${ARGUS_BPF_FOLDER}/*.h)
    find_program(ARGUS_BPF_CLANG NAMES clang clang-20 clang-19 clang-18 clang-17 clang-16 clang-15 clang-14)
    find_path(ARGUS_BPF_INCLUDE bpf/bpf_helpers.h)
    set(DECLARED "")
    set(TABLE "")
    foreach(PROGRAM ${PROGRAMS})
        get_filename_component(NAME ${PROGRAM} NAME)
        string(REPLACE ".bpf.c" "" NAME ${NAME})
        set(COMPILE ${ARGUS_BPF_CLANG} ${FLAGS} -I${ARGUS_BPF_INCLUDE} -c ${PROGRAM} -o ${OUT}/${NAME}.o)
        set(STATUS "no clang or no libbpf-dev")
        if(ARGUS_BPF_CLANG AND ARGUS_BPF_INCLUDE)
            execute_process(COMMAND ${COMPILE} RESULT_VARIABLE STATUS OUTPUT_QUIET ERROR_QUIET)
        endif()
        if(NOT STATUS EQUAL 0)
            message(STATUS "BPF: ${NAME}.bpf.c is left out (${STATUS}): this build lacks what it offers")
            continue()
        endif()
        add_custom_command(OUTPUT ${OUT}/${NAME}.cpp
            COMMAND ${COMPILE}
            COMMAND ${CMAKE_COMMAND} -DOBJECT=${OUT}/${NAME}.o -DNAME=${NAME} -DOUTPUT=${OUT}/${NAME}.cpp
                    -P ${ARGUS_BPF_FOLDER}/embed.cmake
            DEPENDS ${PROGRAM} ${HEADERS} ${ARGUS_BPF_FOLDER}/embed.cmake VERBATIM)
        target_sources(${TARGET} PRIVATE ${OUT}/${NAME}.cpp)
        string(APPEND DECLARED
            "extern const unsigned char ${NAME}_object[];\nextern const unsigned long ${NAME}_object_size;\n")
        string(APPEND TABLE "    if (name == \"${NAME}\") return {${NAME}_object, ${NAME}_object_size};\n")
    endforeach()
    file(GENERATE OUTPUT ${OUT}/compiled.cpp CONTENT "#include \"sources/bpf/loader.hpp\"\n
namespace argus::sources::bpf {\n${DECLARED}
std::span<const unsigned char> compiled([[maybe_unused]] std::string_view name) noexcept {\n${TABLE}    return {};\n}\n
}  // namespace argus::sources::bpf\n")
    target_sources(${TARGET} PRIVATE ${OUT}/compiled.cpp)
    target_link_libraries(${TARGET} PUBLIC ${CMAKE_DL_LIBS})
endfunction()

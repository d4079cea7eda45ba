/*
 * The narrow C side of the JPEG decoder.
 *
 * libjpeg reports fatal errors by calling a function that must not return. The only portable way out is
 * setjmp/longjmp, and a longjmp must not cross Rust frames; so everything that can jump lives in this file and Rust
 * sees two plain functions. The settings are those of Pillow (libImaging/JpegDecode.c) and of libtiff: default DCT,
 * fancy upsampling, warnings tolerated, and an input that ends early is "truncated", not padded with a made-up end
 * marker.
 */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

enum {
    DINOV3_JPEG_OK = 0,
    DINOV3_JPEG_TRUNCATED = 1,
    DINOV3_JPEG_BROKEN = 2,
    DINOV3_JPEG_TOO_MANY_SCANS = 3,
    DINOV3_JPEG_SIZE_CHANGED = 4
};

/*
 * A progressive file may hold thousands of scans, each of which costs a full pass over the picture. Encoders write
 * about ten, and a script that refines every coefficient bit by bit some hundred. Large pictures get fewer.
 */
#define DINOV3_JPEG_MAX_SCANS 500
#define DINOV3_JPEG_MIN_SCANS 40
#define DINOV3_JPEG_MAX_SCANNED_PIXELS 1000000000.0

/* What becomes of the components. */
enum { DINOV3_JPEG_OF_PICTURE = 0, DINOV3_JPEG_AS_STORED = 1, DINOV3_JPEG_OF_YCBCR = 2 };

struct dinov3_jpeg_header {
    uint32_t width;
    uint32_t height;
    uint32_t components;
    uint32_t bits;
};

struct error_state {
    struct jpeg_error_mgr base;
    jmp_buf escape;
    int code;
    char message[JMSG_LENGTH_MAX];
};

struct progress_state {
    struct jpeg_progress_mgr base;
    struct error_state *error;
    int max_scans;
};

static void on_fatal_error(j_common_ptr common) {
    struct error_state *error = (struct error_state *)common->err;
    error->code = DINOV3_JPEG_BROKEN;
    error->base.format_message(common, error->message);
    longjmp(error->escape, 1);
}

static void on_message(j_common_ptr common) {
    /* Warnings are tolerated, as Pillow does; nothing is printed from a library. */
    (void)common;
}

static void on_progress(j_common_ptr common) {
    struct progress_state *progress = (struct progress_state *)common->progress;
    if (common->is_decompressor && ((j_decompress_ptr)common)->input_scan_number > progress->max_scans) {
        progress->error->code = DINOV3_JPEG_TOO_MANY_SCANS;
        snprintf(progress->error->message, sizeof(progress->error->message), "more than %d progressive scans",
                 progress->max_scans);
        longjmp(progress->error->escape, 1);
    }
}

static int scans_allowed(double pixels) {
    double scans = DINOV3_JPEG_MAX_SCANNED_PIXELS / pixels;
    if (scans > DINOV3_JPEG_MAX_SCANS) {
        return DINOV3_JPEG_MAX_SCANS;
    }
    return scans < DINOV3_JPEG_MIN_SCANS ? DINOV3_JPEG_MIN_SCANS : (int)scans;
}

static void source_nothing(j_decompress_ptr decoder) {
    (void)decoder;
}

static boolean source_is_exhausted(j_decompress_ptr decoder) {
    /* FALSE suspends the decoder: the caller then knows that the bytes ran out. */
    (void)decoder;
    return FALSE;
}

static void source_skip(j_decompress_ptr decoder, long count) {
    if (count <= 0) {
        return;
    }
    if ((size_t)count > decoder->src->bytes_in_buffer) {
        decoder->src->next_input_byte += decoder->src->bytes_in_buffer;
        decoder->src->bytes_in_buffer = 0;
    } else {
        decoder->src->next_input_byte += count;
        decoder->src->bytes_in_buffer -= (size_t)count;
    }
}

static void prepare(struct jpeg_decompress_struct *decoder, struct error_state *error,
                    struct progress_state *progress, struct jpeg_source_mgr *source) {
    decoder->err = jpeg_std_error(&error->base);
    error->base.error_exit = on_fatal_error;
    error->base.output_message = on_message;
    (void)progress;
    source->init_source = source_nothing;
    source->fill_input_buffer = source_is_exhausted;
    source->skip_input_data = source_skip;
    source->resync_to_restart = jpeg_resync_to_restart;
    source->term_source = source_nothing;
}

static void hand_over_message(const struct error_state *error, char *message, size_t message_size) {
    if (message_size > 0) {
        snprintf(message, message_size, "%s", error->message);
    }
}

static int read_header(struct jpeg_decompress_struct *decoder) {
    int state;
    do {
        state = jpeg_read_header(decoder, FALSE);
    } while (state == JPEG_HEADER_TABLES_ONLY);
    return state == JPEG_HEADER_OK ? DINOV3_JPEG_OK : DINOV3_JPEG_TRUNCATED;
}

/* Reads a stream of quantisation and Huffman tables alone, which are those of the next one. */
static int read_tables(struct jpeg_decompress_struct *decoder, struct error_state *error) {
    int state = jpeg_read_header(decoder, FALSE);
    if (state == JPEG_HEADER_TABLES_ONLY) {
        return DINOV3_JPEG_OK;
    }
    snprintf(error->message, sizeof(error->message), "its tables are %s",
             state == JPEG_SUSPENDED ? "truncated" : "a picture of their own");
    return DINOV3_JPEG_BROKEN;
}

int dinov3_jpeg_read_header(const uint8_t *data, size_t size, struct dinov3_jpeg_header *header, char *message,
                            size_t message_size) {
    struct jpeg_decompress_struct decoder;
    struct error_state error;
    struct progress_state progress;
    struct jpeg_source_mgr source;
    int result;

    memset(&decoder, 0, sizeof(decoder));
    memset(&error, 0, sizeof(error));
    memset(&progress, 0, sizeof(progress));
    memset(&source, 0, sizeof(source));
    prepare(&decoder, &error, &progress, &source);
    if (setjmp(error.escape)) {
        jpeg_destroy_decompress(&decoder);
        hand_over_message(&error, message, message_size);
        return error.code;
    }
    jpeg_create_decompress(&decoder);
    source.next_input_byte = data;
    source.bytes_in_buffer = size;
    decoder.src = &source;
    result = read_header(&decoder);
    if (result == DINOV3_JPEG_OK) {
        header->width = decoder.image_width;
        header->height = decoder.image_height;
        header->components = (uint32_t)decoder.num_components;
        header->bits = (uint32_t)decoder.data_precision;
    }
    jpeg_destroy_decompress(&decoder);
    return result;
}

/*
 * Writes height * width * components bytes to pixels: of a picture grey, RGB, or CMYK as stored; else what the TIFF that
 * holds the stream says. The expected header is the one that dinov3_jpeg_read_header gave and the caller sized its
 * buffer by.
 */
int dinov3_jpeg_decode(const uint8_t *tables, size_t tables_size, const uint8_t *data, size_t size,
                       const struct dinov3_jpeg_header *expected, int colours, uint8_t *pixels, char *message,
                       size_t message_size) {
    struct jpeg_decompress_struct decoder;
    struct error_state error;
    struct progress_state progress;
    struct jpeg_source_mgr source;
    size_t stride = (size_t)expected->width * expected->components;
    int result;

    memset(&decoder, 0, sizeof(decoder));
    memset(&error, 0, sizeof(error));
    memset(&progress, 0, sizeof(progress));
    memset(&source, 0, sizeof(source));
    prepare(&decoder, &error, &progress, &source);
    if (setjmp(error.escape)) {
        jpeg_destroy_decompress(&decoder);
        hand_over_message(&error, message, message_size);
        return error.code;
    }
    jpeg_create_decompress(&decoder);
    decoder.src = &source;
    if (tables_size > 0) {
        source.next_input_byte = tables;
        source.bytes_in_buffer = tables_size;
        result = read_tables(&decoder, &error);
        if (result != DINOV3_JPEG_OK) {
            jpeg_destroy_decompress(&decoder);
            hand_over_message(&error, message, message_size);
            return result;
        }
    }
    source.next_input_byte = data;
    source.bytes_in_buffer = size;
    progress.base.progress_monitor = on_progress;
    progress.error = &error;
    progress.max_scans = scans_allowed((double)expected->width * (double)expected->height);
    decoder.progress = &progress.base;

    result = read_header(&decoder);
    if (result != DINOV3_JPEG_OK) {
        jpeg_destroy_decompress(&decoder);
        return result;
    }
    if (decoder.image_width != expected->width || decoder.image_height != expected->height ||
        (uint32_t)decoder.num_components != expected->components || decoder.data_precision != 8) {
        jpeg_destroy_decompress(&decoder);
        return DINOV3_JPEG_SIZE_CHANGED;
    }
    if (colours == DINOV3_JPEG_AS_STORED) {
        decoder.jpeg_color_space = JCS_UNKNOWN;
        decoder.out_color_space = JCS_UNKNOWN;
    } else if (colours == DINOV3_JPEG_OF_YCBCR) {
        decoder.jpeg_color_space = JCS_YCbCr;
        decoder.out_color_space = JCS_RGB;
    } else {
        switch (decoder.num_components) {
        case 1:
            decoder.out_color_space = JCS_GRAYSCALE;
            break;
        case 3:
            decoder.out_color_space = JCS_RGB;
            break;
        default:
            decoder.out_color_space = JCS_CMYK;
            break;
        }
    }
    if (!jpeg_start_decompress(&decoder)) {
        jpeg_destroy_decompress(&decoder);
        return DINOV3_JPEG_TRUNCATED;
    }
    /* The caller's buffer was sized by these; nothing may be written if they are other than expected. */
    if (decoder.output_width != expected->width || decoder.output_height != expected->height ||
        (uint32_t)decoder.output_components != expected->components) {
        jpeg_destroy_decompress(&decoder);
        return DINOV3_JPEG_SIZE_CHANGED;
    }
    while (decoder.output_scanline < decoder.output_height) {
        JSAMPROW row = pixels + stride * decoder.output_scanline;
        if (jpeg_read_scanlines(&decoder, &row, 1) != 1) {
            jpeg_destroy_decompress(&decoder);
            return DINOV3_JPEG_TRUNCATED;
        }
    }
    /* What follows the last row (a missing end marker, trailing bytes) cannot change the picture. */
    (void)jpeg_finish_decompress(&decoder);
    jpeg_destroy_decompress(&decoder);
    return DINOV3_JPEG_OK;
}

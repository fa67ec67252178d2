// Runs $name ($what) on Android. Made by dsconvert; change what you like.
//
// Put the file into src/main/assets, and into the dependencies of build.gradle:
//     $build
// The pixels are 8-bit values (height, width, channels), as they are stored; of a Bitmap: getPixels.
$include
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val MODEL = "$name"
private const val SCALE = ${scale}f // stored values are multiplied by this
private val MEAN = floatArrayOf($mean) // one number, or one per channel
private val STD = floatArrayOf($std) // one number, or one per channel

/** Tells whether images are (1, channels, height, width). */
private fun channelsFirst(shape: IntArray): Boolean {
    val few = setOf(1, 3, 4)
    return shape.size == 4 && shape[1] in few && shape[3] !in few
}

/** Preprocesses stored values (height, width, channels) as it was done for this model. */
private fun prepare(stored: ByteArray, shape: IntArray): FloatArray {
    val count = shape.fold(1) { product, size -> product * size }
    require(stored.size == count) { "expected " + count + " values, got " + stored.size }
    val first = channelsFirst(shape)
    val channels = if (shape.size < 2) 1 else if (first) shape[1] else shape.last()
    val places = count / channels
    val values = FloatArray(count)
    for (i in 0 until count) {
        val place = i / channels
        val channel = i % channels
        val pixel = (stored[i].toInt() and 0xFF).toFloat()
        val value = (pixel * SCALE - MEAN[channel % MEAN.size]) / STD[channel % STD.size]
        values[if (first) channel * places + place else i] = value
    }
    return values
}

$model

/** The file in LiteRT: float32 out; integers inside are scaled here. */
class Model(context: Context, threads: Int = 1) : AutoCloseable {
    private val interpreter: Interpreter

    init {
        val stored = context.assets.open(MODEL).use { it.readBytes() }
        val file = buffer(stored.size).put(stored)
        interpreter = Interpreter(file, Interpreter.Options().setNumThreads(threads))
    }

    /** Runs one image of stored values. */
    fun run(stored: ByteArray): List<FloatArray> {
        val input = interpreter.getInputTensor(0)
        val given = buffer(input.numBytes())
        prepare(stored, input.shape()).forEach { write(it, input, given) }
        val outputs = (0 until interpreter.outputTensorCount).map(interpreter::getOutputTensor)
        val found = outputs.map { buffer(it.numBytes()) }
        given.rewind()
        interpreter.runForMultipleInputsOutputs(
            arrayOf<Any>(given),
            found.withIndex().associate { (number, bytes) -> number to bytes as Any },
        )
        return outputs.zip(found).map { (output, bytes) -> read(output, bytes) }
    }

    override fun close() = interpreter.close()

    private fun buffer(size: Int) = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

    private fun write(value: Float, input: Tensor, bytes: ByteBuffer) {
        if (input.dataType() == DataType.FLOAT32) {
            bytes.putFloat(value)
            return
        }
        val how = input.quantizationParams()
        val level = Math.rint((value / how.scale).toDouble()).toInt() + how.zeroPoint
        when (input.dataType()) {
            DataType.INT8 -> bytes.put(level.coerceIn(-128, 127).toByte())
            DataType.UINT8 -> bytes.put(level.coerceIn(0, 255).toByte())
            DataType.INT16 -> bytes.putShort(level.coerceIn(-32768, 32767).toShort())
            else -> error("an input of this type is not handled")
        }
    }

    private fun read(output: Tensor, bytes: ByteBuffer): FloatArray {
        bytes.rewind()
        val how = output.quantizationParams()
        return FloatArray(output.numElements()) {
            val level = when (output.dataType()) {
                DataType.FLOAT32 -> return@FloatArray bytes.getFloat()
                DataType.INT8 -> bytes.get().toInt()
                DataType.UINT8 -> bytes.get().toInt() and 0xFF
                DataType.INT16 -> bytes.getShort().toInt()
                else -> error("an output of this type is not handled")
            }
            (level - how.zeroPoint) * how.scale
        }
    }
}
